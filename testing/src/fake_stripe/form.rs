//! Stripe's forms: names with brackets, read into objects and lists.

use serde_json::{Map, Value};

/// A form as an object: `a[b]=c` is `{"a": {"b": "c"}}`, and `a[]=b` and `a[0]=b` are `{"a": ["b"]}`.
pub fn read(form: &[u8]) -> Value {
    let mut root = Value::Object(Map::new());
    for (name, value) in form_urlencoded::parse(form) {
        let mut place = &mut root;
        for part in parts(&name) {
            place = step(place, part);
        }
        *place = Value::String(value.into_owned());
    }
    root
}

fn parts(name: &str) -> Vec<&str> {
    let (first, rest) = name.split_once('[').unwrap_or((name, ""));
    let rest = rest.split('[').filter(|_| !rest.is_empty()).map(|part| part.trim_end_matches(']'));
    std::iter::once(first).chain(rest).collect()
}

fn step<'a>(place: &'a mut Value, part: &str) -> &'a mut Value {
    if part.is_empty() || part.bytes().all(|byte| byte.is_ascii_digit()) {
        if !place.is_array() {
            *place = Value::Array(Vec::new());
        }
        let Value::Array(items) = place else { unreachable!("it was made a list") };
        items.push(Value::Null);
        let last = items.len() - 1;
        return &mut items[last];
    }
    if !place.is_object() {
        *place = Value::Object(Map::new());
    }
    let Value::Object(fields) = place else { unreachable!("it was made an object") };
    fields.entry(part.to_owned()).or_insert(Value::Null)
}
