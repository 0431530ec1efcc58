//! `contributes`: what the plugin offers. Each entry implies the right to register it.

use std::collections::HashSet;

use palisade_model::{Capability, Kind, capability::Scope};

use super::{
    MAX_DESCRIPTION, MAX_ENTRIES, MAX_NAME, MAX_REASON,
    reader::{Field, Fields, Reader, Text},
};
use crate::{
    error::{Rule, quoted},
    json_schema::{self, JsonSchema},
    manifest::{Channel, Command, Contributes, Hook, Service, Tool},
    tree::{Node, Value},
};

/// Where a hook stands that does not say.
pub(crate) const DEFAULT_PRIORITY: u16 = 50;
/// The largest priority.
pub(crate) const MAX_PRIORITY: u16 = 1000;

pub(super) fn read(field: &Field<'_>, reader: &mut Reader) -> Contributes {
    let mut out = Contributes::default();
    let Some(mut fields) = reader.fields(field) else { return out };
    out.tools = family(&mut fields, reader, "tools", tool);
    out.commands = family(&mut fields, reader, "commands", command);
    out.hooks = family(&mut fields, reader, "hooks", hook);
    out.channels = family(&mut fields, reader, "channels", channel);
    out.services = family(&mut fields, reader, "services", service);
    fields.finish(reader);
    out
}

type Names = HashSet<String>;

fn family<T>(
    fields: &mut Fields<'_>,
    reader: &mut Reader,
    key: &'static str,
    one: impl Fn(&mut Fields<'_>, &mut Reader, &mut Names) -> Option<T>,
) -> Vec<T> {
    let Some(field) = fields.take(key) else { return Vec::new() };
    let mut names = Names::new();
    let mut out = Vec::new();
    for item in reader.list(&field, MAX_ENTRIES) {
        let Some(mut fields) = reader.fields(&item) else { continue };
        out.extend(one(&mut fields, reader, &mut names));
        fields.finish(reader);
    }
    out
}

/// A name that is an exact scope of `kind` and that no other entry of the family has.
fn name(
    fields: &mut Fields<'_>,
    reader: &mut Reader,
    key: &'static str,
    kind: Kind,
    names: &mut Names,
) -> Option<String> {
    let field = fields.need(reader, key)?;
    let text = reader.str(&field)?;
    let exact = Capability::new(kind, text)
        .is_ok_and(|c| matches!(c.scope(), Scope::Name(name) if name.exact().is_some()));
    if !exact {
        let message = format!(
            "{} does not fit: a name has 1 to 256 characters of A-Z a-z 0-9 . _ - : / @ $ +",
            quoted(text)
        );
        reader.wrong(Rule::Text, &field, message);
        return None;
    }
    if !names.insert(text.to_owned()) {
        reader.wrong(
            Rule::Duplicate,
            &field,
            format!("there is another {} of this name", kind.as_str()),
        );
        return None;
    }
    Some(text.to_owned())
}

fn description(fields: &mut Fields<'_>, reader: &mut Reader) -> Option<String> {
    fields.need_text(reader, "description", Text::lines(MAX_DESCRIPTION))
}

fn tool(fields: &mut Fields<'_>, reader: &mut Reader, names: &mut Names) -> Option<Tool> {
    let name = name(fields, reader, "name", Kind::Tool, names);
    let description = description(fields, reader);
    let input = match fields.take("input") {
        Some(field) => super::schema(&field, reader),
        None => any_object(reader, fields),
    };
    let output = fields.take("output").and_then(|field| super::schema(&field, reader));
    Some(Tool { name: name?, description: description?, input: input?, output })
}

/// The schema of a tool that says nothing about what it takes.
fn any_object(reader: &mut Reader, fields: &Fields<'_>) -> Option<JsonSchema> {
    let span = fields.span;
    let key = crate::tree::Key { text: "type".into(), span };
    let kind = Node { value: Value::Str("object".into()), span };
    let node = Node { value: Value::Map(vec![(key, kind)]), span };
    json_schema::compile(&node, &mut reader.schemas).map_err(|finding| reader.report(finding)).ok()
}

fn command(fields: &mut Fields<'_>, reader: &mut Reader, names: &mut Names) -> Option<Command> {
    let name = name(fields, reader, "name", Kind::Command, names);
    let description = description(fields, reader);
    let usage = fields.text(reader, "usage", Text::lines(MAX_DESCRIPTION));
    Some(Command { name: name?, description: description?, usage })
}

fn hook(fields: &mut Fields<'_>, reader: &mut Reader, names: &mut Names) -> Option<Hook> {
    let event = name(fields, reader, "event", Kind::Hook, names);
    let priority = fields.take("priority").and_then(|field| {
        let number = reader.whole(&field, 0, MAX_PRIORITY.into())?;
        u16::try_from(number).ok()
    });
    let reason = fields.text(reader, "reason", Text::line(MAX_REASON));
    Some(Hook { event: event?, priority: priority.unwrap_or(DEFAULT_PRIORITY), reason })
}

fn channel(fields: &mut Fields<'_>, reader: &mut Reader, names: &mut Names) -> Option<Channel> {
    let channel_type = name(fields, reader, "type", Kind::Channel, names);
    let name = fields.text(reader, "name", Text::line(MAX_NAME));
    let description = description(fields, reader);
    Some(Channel { channel_type: channel_type?, name, description: description? })
}

fn service(fields: &mut Fields<'_>, reader: &mut Reader, names: &mut Names) -> Option<Service> {
    let name = name(fields, reader, "name", Kind::Service, names);
    let description = description(fields, reader);
    Some(Service { name: name?, description: description? })
}
