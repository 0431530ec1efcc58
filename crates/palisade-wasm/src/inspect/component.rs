//! Components.

use wasmparser::{
    Parser, Payload, ValidPayload, Validator,
    component_types::{ComponentAnyTypeId, ComponentEntityType, ComponentInstanceType},
    types::Types,
};

use super::{
    Budget, Export, Form, Import, InspectError, Inspection, Need, Sections, Sort, features, rights,
    shapes,
};
use crate::reflect::{self, Found};

/// What the outermost level of a component says.
struct Outline<'a> {
    types: Types,
    imports: Vec<&'a str>,
    exports: Vec<&'a str>,
    sections: Sections,
}

pub(super) fn inspect(bytes: &[u8]) -> Result<Inspection, InspectError> {
    // What is valid without the asynchronous part does not use it.
    let (outline, asynchronous) = match outline(bytes, false) {
        Ok(outline) => (outline, false),
        Err(InspectError::Invalid(_)) => (outline(bytes, true)?, true),
        Err(error) => return Err(error),
    };
    let types = &outline.types;
    let mut budget = Budget::new();
    let mut imports = Vec::new();
    for name in outline.imports {
        budget.spend()?;
        let Some(item) = types.component_item_for_import(name) else { continue };
        let (need, why) = need(name, &item.ty);
        imports.push(Import {
            name: name.to_owned(),
            sort: sort(&item.ty),
            need,
            why,
            functions: functions(types, &item.ty, &mut budget)?,
        });
    }
    let (mut exports, mut found) = (Vec::new(), Vec::new());
    for name in outline.exports {
        budget.spend()?;
        let Some(item) = types.component_item_for_export(name) else { continue };
        exports.push(Export {
            name: name.to_owned(),
            sort: sort(&item.ty),
            functions: functions(types, &item.ty, &mut budget)?,
        });
        match item.ty {
            ComponentEntityType::Func(id) => found.push(Found {
                interface: None,
                function: name.to_owned(),
                signature: shapes::signature(types, id),
            }),
            ComponentEntityType::Instance(id) => {
                let ComponentInstanceType { exports, .. } = &types[id];
                for (function, item) in exports {
                    if let ComponentEntityType::Func(id) = item.ty {
                        found.push(Found {
                            interface: Some(name.to_owned()),
                            function: function.clone(),
                            signature: shapes::signature(types, id),
                        });
                    }
                }
            }
            _ => {}
        }
    }
    let exports_interface = |package: &str, interface: &str| {
        exports.iter().any(|export| super::is_interface(&export.name, package, interface))
    };
    let form = if exports_interface("palisade:plugin", "guest") {
        Form::Plugin
    } else if exports_interface("wasi:cli", "run") {
        Form::WasiCommand
    } else if exports_interface("wasi:http", "incoming-handler")
        || exports_interface("wasi:http", "handler")
    {
        Form::WasiHttp
    } else {
        Form::Component
    };
    let tools = if form == Form::Plugin { Vec::new() } else { reflect::tools(found) };
    Ok(Inspection { form, imports, exports, tools, asynchronous, sections: outline.sections.0 })
}

fn outline(bytes: &[u8], concurrent: bool) -> Result<Outline<'_>, InspectError> {
    let mut validator = Validator::new_with_features(features(concurrent));
    let (mut imports, mut exports) = (Vec::new(), Vec::new());
    let mut sections = Sections::default();
    // How many modules and components stand around what is read.
    let mut depth = 0_usize;
    let mut types = None;
    for payload in Parser::new(0).parse_all(bytes) {
        let payload = payload?;
        if let ValidPayload::End(of_this_level) = validator.payload(&payload)? {
            types = Some(of_this_level);
        }
        match &payload {
            Payload::Version { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(reader) if depth == 1 => {
                for import in reader.clone() {
                    imports.push(import?.name.name);
                }
            }
            Payload::ComponentExportSection(reader) if depth == 1 => {
                for export in reader.clone() {
                    exports.push(export?.name.name);
                }
            }
            Payload::CustomSection(section) if depth == 1 => sections.add(section),
            _ => {}
        }
    }
    let types = types.ok_or_else(|| InspectError::Invalid("it has no end".into()))?;
    Ok(Outline { types, imports, exports, sections })
}

/// What an import of this type needs, and why.
fn need(name: &str, ty: &ComponentEntityType) -> (Need, &'static str) {
    match (ty, rights::of_import(name)) {
        (ComponentEntityType::Instance(_), known) => known,
        // A resource that is no other import's would have to be made by somebody.
        (
            ComponentEntityType::Type { created: ComponentAnyTypeId::Resource(new), referenced },
            _,
        ) if *referenced == ComponentAnyTypeId::Resource(*new) => {
            (Need::Unknown, "a resource of its own, which nobody here makes")
        }
        // Other types alone can do nothing.
        (ComponentEntityType::Type { .. }, _) => (Need::Nothing, "a type"),
        (_, (Need::Unknown, why)) => (Need::Unknown, why),
        _ => (Need::Unknown, "it is known here as an interface, and imported as something else"),
    }
}

fn sort(ty: &ComponentEntityType) -> Sort {
    match ty {
        ComponentEntityType::Module(_) => Sort::Module,
        ComponentEntityType::Func(_) => Sort::Function,
        ComponentEntityType::Value(_) => Sort::Value,
        ComponentEntityType::Type { .. } => Sort::Type,
        ComponentEntityType::Instance(_) => Sort::Interface,
        ComponentEntityType::Component(_) => Sort::Component,
    }
}

fn functions(
    types: &Types,
    ty: &ComponentEntityType,
    budget: &mut Budget,
) -> Result<Vec<String>, InspectError> {
    let ComponentEntityType::Instance(id) = ty else { return Ok(Vec::new()) };
    let mut names = Vec::new();
    for (name, item) in &types[*id].exports {
        if matches!(item.ty, ComponentEntityType::Func(_)) {
            budget.spend()?;
            names.push(name.clone());
        }
    }
    Ok(names)
}
