//! Checks the envelope around a command's data.

use super::data::{DATA, DATA_BASE64};
use crate::excerpt::{NAME_MAX, excerpt};
use crate::payment::code::{Code, Rejection};
use crate::payment::command::ATTRIBUTE_MAX;
use crate::payment::command::CommandType;
use crate::payment::field::{Form, fields};
use crate::payment::json::letters;
use crate::worker::intake::accept::{Attributes, optional_text, reject};

/// Checks the attributes that every command has.
pub(super) fn check_envelope(attributes: &Attributes<'_>) -> Result<(), Rejection> {
    if let Some(wrong) = &attributes.wrong {
        return Err(wrong.clone());
    }
    if let Some(name) = attributes.twice.first() {
        return Err(invalid(name, "is given twice"));
    }
    if optional_text(attributes, "specversion", ATTRIBUTE_MAX)?.as_deref() != Some("1.0") {
        return Err(invalid("specversion", "must be \"1.0\""));
    }
    if optional_text(attributes, "type", ATTRIBUTE_MAX)?.is_none() {
        return Err(invalid("type", "is missing"));
    }
    match optional_text(attributes, "datacontenttype", ATTRIBUTE_MAX)? {
        Some(kind) if !is_json(&kind) => Err(invalid("datacontenttype", "must be application/json")),
        _ => Ok(()),
    }
}

/// Whether a media type is that of JSON, regardless of case and parameters.
fn is_json(kind: &str) -> bool {
    kind.split(';').next().is_some_and(|kind| kind.trim_end_matches(' ').eq_ignore_ascii_case("application/json"))
}

/// Rejects data and amounts in places where they would be overlooked: unknown attributes are ignored, and a command
/// without its amount would apply to the full amount.
pub(super) fn check_places(kind: Option<CommandType>, attributes: &Attributes<'_>) -> Result<(), Rejection> {
    let own = kind.map_or(&[][..], fields).iter().filter(|field| field.form == Form::Amount);
    let amounts: Vec<String> = own.map(|field| letters(field.name)).collect();
    for name in attributes.members.keys().filter(|name| *name != DATA && *name != DATA_BASE64) {
        let letters = letters(name);
        if letters == "data" || letters == "database64" {
            return Err(invalid(name, "must be spelled data or data_base64"));
        }
        if amounts.contains(&letters) {
            return Err(invalid(name, "belongs in data"));
        }
    }
    Ok(())
}

fn invalid(name: &str, what: &str) -> Rejection {
    reject(Code::InvalidEnvelope, format!("{}: {what}", excerpt(name, NAME_MAX)))
}
