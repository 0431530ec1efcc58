//! The reference plugin as a program.
#![forbid(unsafe_code)]

mod plugin;

fn main() -> std::process::ExitCode {
    plugin::plugin().run()
}
