//! The reference of services, written from their registration, so that it cannot say anything else.

use std::fmt::Write as _;

use palisade_broker::{Reach, ServiceInfo, ServiceRegistry};
use serde_json::Value;

const HEAD: &str = "\
# Services

What a plugin can ask of the host. This page is written from the registration of the services
themselves (`UPDATE_REFERENCE=1 cargo test -p palisade-services` writes it anew).

A request takes a token from the plugin's rate of requests, then its parameters are read, then the
right that it takes is decided, then it is recorded, then it is done. A refusal carries a code
(`PAL-DENIED`, `PAL-RATE`, `PAL-PARAMS` …), the rule that decided, and what to do about it. Parameters
that a service does not know are refused. Services of the application are called as `host.call`.

";

const HOST_CALL: &str = "\
## host.call

Calls a service of the application by its name. The right is `host.call:NAME` unless the service names
another one; a service that is not granted is denied whether it exists or not.

| parameter | type | | |
|---|---|---|---|
| `method` | string | required | The name of the service. |
| `params` | any | | The parameters that the service takes. |

The result is that of the service.

";

/// The reference page of the registered services, in Markdown.
#[must_use]
pub fn reference_markdown(services: &ServiceRegistry) -> String {
    let mut page = String::from(HEAD);
    let (methods, calls): (Vec<ServiceInfo>, Vec<ServiceInfo>) =
        services.list().into_iter().partition(|s| s.reach == Reach::Method);
    for service in &methods {
        section(&mut page, service);
    }
    page.push_str(HOST_CALL);
    for service in &calls {
        section(&mut page, service);
    }
    page.truncate(page.trim_end().len());
    page.push('\n');
    page
}

fn section(page: &mut String, service: &ServiceInfo) {
    let right = match service.capability.as_str() {
        "" => "none".to_owned(),
        capability => format!("`{capability}`"),
    };
    let rate = service.rate.map(|r| format!(" and {r}")).unwrap_or_default();
    let twice = if service.idempotent { "harmless" } else { "not the same as once" };
    // Writing to a String cannot fail.
    let _ = write!(
        page,
        "## {}\n\n{}\n\n- Right: {right}\n- Rates: requests{rate}\n- Parameters: at most {} bytes\n\
         - Deadline: {} ms\n- Doing it twice: {twice}\n\n",
        service.name,
        service.description,
        service.max_params,
        service.deadline.as_millis(),
    );
    table(page, "parameter", service.params.as_value());
    page.push_str("Result:\n\n");
    table(page, "field", service.result.as_value());
}

/// The top level of an object as a table; anything else as one line.
fn table(page: &mut String, what: &str, schema: &Value) {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
        let _ = write!(page, "{}.\n\n", type_name(schema, schema));
        return;
    };
    let required = |name: &str| {
        let list = schema.get("required").and_then(Value::as_array);
        list.is_some_and(|l| l.iter().any(|r| r.as_str() == Some(name)))
    };
    let _ = write!(page, "| {what} | type | | |\n|---|---|---|---|\n");
    for (name, property) in properties {
        let must = if required(name) { "required" } else { "" };
        let description = property.get("description").and_then(Value::as_str).unwrap_or_default();
        let description = description.replace('\n', " ").replace('|', "\\|");
        let _ = writeln!(
            page,
            "| `{name}` | {} | {must} | {description} |",
            type_name(property, schema).replace('|', "\\|")
        );
    }
    page.push('\n');
}

/// The type of a schema in words; names of the root's definitions are followed one step.
fn type_name(schema: &Value, root: &Value) -> String {
    if let Some(name) = schema.get("$ref").and_then(Value::as_str) {
        let pointer = name.trim_start_matches('#');
        return match root.pointer(pointer) {
            Some(target) if target.get("$ref").is_none() => type_name(target, root),
            _ => "any".into(),
        };
    }
    let options = schema.get("oneOf").or_else(|| schema.get("anyOf")).and_then(Value::as_array);
    if let Some(options) = options {
        let names: Vec<String> = options.iter().map(|o| type_name(o, root)).collect();
        return names.join(" or ");
    }
    if let Some(value) = schema.get("const") {
        return format!("`{value}`");
    }
    if let Some(values) = schema.get("enum").and_then(Value::as_array) {
        let names: Vec<String> = values.iter().map(|v| format!("`{v}`")).collect();
        return names.join(" or ");
    }
    match schema.get("type") {
        Some(Value::String(name)) => name.clone(),
        Some(Value::Array(names)) => {
            names.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" or ")
        }
        _ => "any".into(),
    }
}
