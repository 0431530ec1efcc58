//! `capabilities`: what the plugin asks for, and why.

use std::collections::HashSet;

use palisade_model::{Capability, Kind, Risk};

use super::{
    MAX_ENTRIES, MAX_REASON,
    reader::{Field, Reader, Text},
};
use crate::{
    environment::foreign_code,
    error::Rule,
    manifest::{Capabilities, Request},
    tree::Value,
};

pub(super) fn read(field: &Field<'_>, reader: &mut Reader) -> Capabilities {
    let mut out = Capabilities::default();
    let Some(mut fields) = reader.fields(field) else { return out };
    let mut seen = HashSet::new();
    for (key, list) in [("required", &mut out.required), ("optional", &mut out.optional)] {
        let Some(field) = fields.take(key) else { continue };
        for item in reader.list(&field, MAX_ENTRIES) {
            let Some((request, place)) = request(&item, reader) else { continue };
            if seen.insert(request.capability.clone()) {
                list.push(request);
            } else {
                let message = format!("{} is asked for twice", shown(&request.capability));
                reader.wrong(Rule::Duplicate, &place, message);
            }
        }
    }
    fields.finish(reader);
    out
}

/// One entry, and where its capability stands.
fn request<'n>(item: &Field<'n>, reader: &mut Reader) -> Option<(Request, Field<'n>)> {
    let (place, reason, spoilt) = match &item.node.value {
        Value::Str(_) => (item.clone(), None, false),
        _ => {
            let mut fields = reader.fields(item)?;
            let place = fields.need(reader, "capability");
            let field = fields.take("reason");
            let reason = field.as_ref().and_then(|f| reader.text(f, Text::line(MAX_REASON)));
            fields.finish(reader);
            // A reason that is there and wrong was reported; it is not missing on top of that.
            let spoilt = field.is_some() && reason.is_none();
            (place?, reason, spoilt)
        }
    };
    let text = reader.str(&place)?;
    let capability: Capability = match text.parse() {
        Ok(capability) => capability,
        Err(error) => {
            reader.wrong(
                Rule::Capability,
                &place,
                palisade_model::text::escape(&error.to_string(), 400),
            );
            return None;
        }
    };
    if capability.kind() == Kind::Env
        && let Some(variable) = foreign_code(&capability.scope().to_string())
    {
        let message = format!(
            "{} hands over {variable}, which lets a loader or interpreter run foreign code",
            shown(&capability)
        );
        reader.wrong_hint(
            Rule::Environment,
            &place,
            message,
            "name the variables that are needed, one capability each",
        );
        return None;
    }
    let risk = capability.risk();
    if risk >= Risk::Medium && reason.is_none() && !spoilt {
        let capability = shown(&capability);
        reader.wrong_hint(
            Rule::Reason,
            &place,
            format!("{capability} has {risk} risk and needs a reason"),
            "write { capability: …, reason: … } with one line that says what it is for",
        );
        return None;
    }
    Some((Request { capability, reason }, place))
}

fn shown(capability: &Capability) -> String {
    palisade_model::text::escape(&capability.to_string(), 120)
}
