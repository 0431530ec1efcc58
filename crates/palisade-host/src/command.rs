//! Commands: what a plugin lets people run by name, with arguments as on a command line.

use std::sync::Arc;

use palisade_audit::RecordKind;
use palisade_broker::{Action, Bucket};
use palisade_model::{
    Access, ErrorCode, Failure, Kind, Payload,
    capability::Scope,
    text::{escape, nearest},
};
use palisade_protocol::methods::{self, RunCommandParams, RunCommandResult};
use serde::Serialize;

use crate::{CallOptions, Plugin, call::check_trace, hops, running::Running, status::count};

/// Most arguments of a command.
pub const MAX_COMMAND_ARGS: usize = 256;
/// Most bytes of a command's arguments together.
pub const MAX_COMMAND_BYTES: usize = 1 << 20;
/// Longest line of output that [`CommandOutput::shown`] shows whole, in characters.
const MAX_LINE: usize = 4000;

/// What a command answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CommandOutput {
    /// Its exit status; 0 for success.
    pub status: u8,
    /// Its text, as the plugin wrote it. Not safe to show, see [`CommandOutput::shown`].
    pub output: String,
}

impl CommandOutput {
    /// The text, line by line, without anything that could steer a terminal or hide text. Tabs become
    /// spaces; lines beyond 4000 characters are cut.
    #[must_use]
    pub fn shown(&self) -> String {
        let line = |line: &str| escape(&line.replace('\t', "    "), MAX_LINE);
        self.output.lines().map(line).collect::<Vec<_>>().join("\n")
    }
}

impl Plugin {
    /// Runs a command that the plugin declares, with `args` (without the command itself).
    ///
    /// # Errors
    /// [`ErrorCode::Unavailable`] where the plugin does not run, [`ErrorCode::NotFound`] for a command
    /// that it does not offer, [`ErrorCode::LimitExceeded`] for more than 256 arguments or 1 MiB of them,
    /// [`ErrorCode::PluginError`] for its own errors and for an answer that is none, and what the gate
    /// refuses. A status other than 0 is no error here.
    pub async fn run_command<A: AsRef<str>>(
        &self,
        command: &str,
        args: &[A],
    ) -> Result<CommandOutput, Failure> {
        self.run_command_with(command, args, CallOptions::default()).await
    }

    /// [`Plugin::run_command`] with a deadline or a trace.
    ///
    /// # Errors
    /// As [`Plugin::run_command`].
    pub async fn run_command_with<A: AsRef<str>>(
        &self,
        command: &str,
        args: &[A],
        options: CallOptions,
    ) -> Result<CommandOutput, Failure> {
        let host = self.control().host();
        host.check_open()?;
        let running = self.cell().require_running()?;
        let caller = self.control().caller();
        let target = Access::new(Kind::Command, command);
        let mut action = Action::new(RecordKind::Call)
            .towards(&running.caller)
            .target_access(target)
            .target_rate(Bucket::Calls)
            .trace(options.trace.clone());
        if !caller.is_owner() {
            let id = running.loaded.manifest.id.as_str();
            action = action.access(Access::new(Kind::PluginCall, id));
        }
        let found = match running.offer.registered.allows(&target) {
            Some(_) => check_trace(options.trace.as_deref()).and_then(|()| params(command, args)),
            None => Err(no_such_command(&running, command)),
        };
        let entered = found.and_then(|params| Ok((params, hops::enter(&running.caller)?)));
        let (params, _handling) = match entered {
            Ok(entered) => entered,
            Err(failure) => return Err(host.gate().refuse(caller, &action, failure)),
        };
        count(&running.counters.calls);
        let timeout = options.timeout.unwrap_or(running.loaded.limits.call_timeout);
        let payload = params.clone();
        let result = host
            .gate()
            .run(caller, action.payload(&params), || async {
                let trace: Option<Arc<str>> = options.trace;
                let method = methods::RUN_COMMAND;
                read(&running.invoke(host, method, payload, timeout, trace).await?)
            })
            .await;
        if result.is_err() {
            count(&running.counters.calls_failed);
        }
        result
    }
}

fn params<A: AsRef<str>>(command: &str, args: &[A]) -> Result<Payload, Failure> {
    let bytes: usize = args.iter().map(|a| a.as_ref().len()).sum();
    if args.len() > MAX_COMMAND_ARGS || bytes > MAX_COMMAND_BYTES {
        let message = format!(
            "a command takes at most {MAX_COMMAND_ARGS} arguments with {MAX_COMMAND_BYTES} bytes together"
        );
        return Err(Failure::new(ErrorCode::LimitExceeded, message));
    }
    let args = args.iter().map(|a| a.as_ref().to_owned()).collect();
    Payload::json(&RunCommandParams { command: command.to_owned(), args })
        .map_err(|e| Failure::new(ErrorCode::Internal, format!("run_command: {e}")))
}

fn read(answer: &Payload) -> Result<CommandOutput, Failure> {
    let none = |what: String| {
        let message = format!("its answer to a command is not {{status, output}}: {what}");
        Failure::new(ErrorCode::PluginError, message)
    };
    // An array would be read as the fields in their order.
    if answer.bytes().trim_ascii_start().first() != Some(&b'{') {
        return Err(none("it is not an object".into()));
    }
    let RunCommandResult { status, output } =
        answer.parse().map_err(|e| none(escape(&e.to_string(), 200)))?;
    Ok(CommandOutput { status, output })
}

fn no_such_command(running: &Running, command: &str) -> Failure {
    let (id, shown) = (&running.loaded.manifest.id, escape(command, 128));
    if running.loaded.declared.allows(&Access::new(Kind::Command, command)).is_some() {
        let message = format!("plugin {id} declares the command {shown}, but may not offer it");
        return Failure::new(ErrorCode::NotFound, message).hint("the policy forbids it");
    }
    let names: Vec<&str> = running
        .offer
        .registered
        .of_kind(Kind::Command)
        .filter_map(|c| match c.scope() {
            Scope::Name(name) => name.exact(),
            _ => None,
        })
        .collect();
    let failure = Failure::new(ErrorCode::NotFound, format!("plugin {id} has no command {shown}"));
    match nearest(command, names.iter().copied()) {
        Some(near) => failure.hint(format!("did you mean {near}?")),
        None if names.is_empty() => failure.hint("it offers no commands"),
        None => failure.hint(format!("it offers: {}", names.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_an_object_with_a_status_and_a_text() {
        let of = |text: &str| read(&Payload::from_json_text(text.to_owned()));
        let out = |status, output: &str| CommandOutput { status, output: output.into() };
        assert_eq!(of("{}").unwrap(), out(0, ""));
        assert_eq!(of(r#"{"status":255,"output":"a","x":1}"#).unwrap(), out(255, "a"));
        for bad in
            ["null", "[1,\"a\"]", r#"{"status":256}"#, r#"{"status":-1}"#, r#"{"output":[]}"#]
        {
            assert_eq!(of(bad).unwrap_err().code, ErrorCode::PluginError, "{bad}");
        }
    }

    #[test]
    fn what_is_shown_keeps_its_lines_and_nothing_that_steers() {
        let output = "one\ttwo\r\n\x1b[31mred\u{202e}\n".to_owned();
        let shown = CommandOutput { status: 0, output }.shown();
        assert_eq!(shown, "one    two\n\\u{1b}[31mred\\u{202e}");
    }

    #[test]
    fn arguments_are_bounded() {
        assert!(params("go", &["a"; MAX_COMMAND_ARGS]).is_ok());
        let many = params("go", &["a"; MAX_COMMAND_ARGS + 1]).unwrap_err();
        let long = params("go", &["a".repeat(MAX_COMMAND_BYTES + 1)]).unwrap_err();
        assert_eq!((many.code, long.code), (ErrorCode::LimitExceeded, ErrorCode::LimitExceeded));
    }
}
