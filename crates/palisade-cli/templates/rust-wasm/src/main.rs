fn main() -> std::process::ExitCode {
    plugin::plugin().run()
}
