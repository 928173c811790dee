//! Every world that a few commands can come to: all orders of what workers, gateway, broker and database do, with all that
//! may go wrong once or twice. Breadth first, so that what is wrong is told by the shortest way to it. What the random scripts
//! beside ([`super::properties`]) hit once in thousands of cases is found here for sure, within small bounds.
//!
//! Every world is judged as it is, and once more after it came to rest with nothing more going wrong ([`invariants`]). Nothing is
//! cut: a test that passes has seen all worlds of its scenario.
//!
//! By hand and not with `stateright`: our worlds are told apart by times relative to now, one with fewer faults left is
//! covered by one with more, and what is wrong shows as a panic of the store or the gateway. It has none of the three, and
//! the search itself is the smallest part.

mod invariants;
mod key;
mod moves;
mod scenario;
mod scenarios;
mod world;

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use key::{Key, key};
use moves::Move;
use scenario::Scenario;
use world::World;

/// How many steps a world may take to come to rest.
const REST_MAX: usize = 500;

/// All worlds that were seen.
struct Search {
    /// Each world that was reached, by which move of which world before.
    ways: Vec<(usize, Option<Move>)>,
    /// With what was left of faults and ticks each was reached: with less, nothing more can happen.
    seen: HashMap<Key, Vec<(u8, u8)>>,
    /// Those that are known to come to a good rest.
    rested: HashSet<Key>,
    queue: VecDeque<(usize, World)>,
}

/// Explores a scenario to its end.
fn explore(scenario: Scenario) {
    let first = World::new(Rc::new(scenario));
    let mut search = Search {
        ways: vec![(0, None)],
        seen: HashMap::new(),
        rested: HashSet::new(),
        queue: VecDeque::from([(0, first.clone())]),
    };
    let mut ended = 0;
    while let Some((index, world)) = search.queue.pop_front() {
        ended += usize::from(world.has_ended());
        for (by, faults) in world.moves() {
            let mut next = world.clone();
            next.faults -= faults;
            let happened = catch_unwind(AssertUnwindSafe(|| {
                next.apply(by);
                invariants::check(&next);
            }));
            search.ways.push((index, Some(by)));
            let reached = search.ways.len() - 1;
            let happened = happened.and_then(|()| {
                if !search.is_new(&next) {
                    search.ways.pop();
                    return Ok(());
                }
                search.queue.push_back((reached, next.clone()));
                catch_unwind(AssertUnwindSafe(|| search.come_to_rest(next)))
            });
            if let Err(wrong) = happened {
                let wrong = wrong.downcast_ref::<String>().cloned().unwrap_or_else(|| "it panics".to_owned());
                panic!("{wrong}\n{}", search.describe(&first, reached));
            }
        }
    }
    assert!(ended > 0, "the script never came to its end");
    println!("{} worlds, of which {ended} are at the end of the script", search.seen.len());
}

impl Search {
    /// Whether it was not seen yet with as much left that may go wrong.
    fn is_new(&mut self, world: &World) -> bool {
        let left = (world.faults, world.ticks);
        let seen = self.seen.entry(key(world)).or_default();
        if seen.iter().any(|(faults, ticks)| *faults >= left.0 && *ticks >= left.1) {
            return false;
        }
        seen.push(left);
        true
    }

    /// From here on nothing goes wrong: what is open comes to its end, and then the books are the ledger.
    fn come_to_rest(&mut self, mut world: World) {
        let mut on_the_way = vec![key(&world)];
        while on_the_way.last().is_some_and(|last| !self.rested.contains(last)) {
            assert!(on_the_way.len() < REST_MAX, "it never comes to rest");
            if rest_step(&mut world).is_none() {
                invariants::check_at_rest(&world);
                break;
            }
            on_the_way.push(key(&world));
        }
        self.rested.extend(on_the_way);
    }

    /// The way to a world, and what became of it where nothing more went wrong.
    fn describe(&self, first: &World, index: usize) -> String {
        let mut moves = Vec::new();
        let mut at = index;
        while let (before, Some(by)) = self.ways[at] {
            moves.push(by);
            at = before;
        }
        let mut text = format!("after {} moves:\n", moves.len());
        let mut world = first.clone();
        for by in moves.into_iter().rev() {
            let words = world.describe(by);
            let went = catch_unwind(AssertUnwindSafe(|| world.apply(by)));
            writeln!(text, "  {words}").unwrap();
            if went.is_err() {
                return text + &world.to_string();
            }
        }
        writeln!(text, "{world}from here on nothing goes wrong:").unwrap();
        for _ in 0..REST_MAX {
            let step = catch_unwind(AssertUnwindSafe(|| rest_step(&mut world)));
            let Ok(Some(words)) = step else { break };
            writeln!(text, "  {words}").unwrap();
        }
        text + &world.to_string()
    }
}

/// One step on the way to rest, in words; nothing where there is none.
fn rest_step(world: &mut World) -> Option<String> {
    if let Some(by) = world.goes_on().filter(|by| *by != Move::Tick) {
        let words = world.describe(by);
        world.apply(by);
        return Some(words);
    }
    if let Some(words) = world.person_acts() {
        return Some(words);
    }
    let by = world.goes_on()?;
    let words = world.describe(by);
    world.apply(by);
    Some(words)
}
