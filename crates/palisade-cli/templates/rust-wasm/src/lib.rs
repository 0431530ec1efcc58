use palisade_plugin::{Plugin, Tool};

#[derive(serde::Deserialize)]
struct Greet {
    name: String,
    #[serde(default)]
    times: Option<usize>,
}

fn greet(args: &Greet) -> String {
    format!("Hello, {}!", vec![args.name.as_str(); args.times.unwrap_or(1)].join(", "))
}

/// The plugin: a component exports it, and `main.rs` runs it as a process.
pub fn plugin() -> Plugin {
    let mut plugin = Plugin::new();
    plugin.tool(Tool::new("greet").description("Greets somebody."), |args: Greet, call| {
        call.log().field("who", &args.name).info("greeting");
        Ok(greet(&args))
    });

    // plugin.event("chat.>", |event, call| {         // needs the capability event.subscribe:chat.>
    //     call.storage().set("last", &event.data::<String>()?)?;       // needs storage.kv:last
    //     Ok(())
    // });
    //
    // plugin.hook("message.received", |text: String, _call| {   // and under contributes: hooks
    //     Ok(Some(text.trim().to_owned()))
    // });

    plugin
}

palisade_plugin::component!(plugin);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_greeting_names_its_guest_as_often_as_asked() {
        let args = |times| Greet { name: "Ada".to_owned(), times };
        assert_eq!(greet(&args(None)), "Hello, Ada!");
        assert_eq!(greet(&args(Some(2))), "Hello, Ada, Ada!");
    }
}
