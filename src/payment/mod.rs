//! The pure core: everything that decides, without I/O, clock or async.
