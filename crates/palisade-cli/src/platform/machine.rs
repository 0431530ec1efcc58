//! What this machine and the person at it are called, and what its terminal understands.

/// The system, its version and the processor.
#[cfg(unix)]
pub(crate) fn name() -> String {
    let name = rustix::system::uname();
    format!(
        "{} {} on {}",
        name.sysname().to_string_lossy(),
        name.release().to_string_lossy(),
        name.machine().to_string_lossy()
    )
}

/// The system and the processor.
#[cfg(not(unix))]
pub(crate) fn name() -> String {
    format!("{} on {}", std::env::consts::OS, std::env::consts::ARCH)
}

/// Who runs the command, as records name it. By number: names can be chosen in the environment.
#[cfg(unix)]
pub(crate) fn user() -> String {
    format!("uid {}", rustix::process::geteuid().as_raw())
}

/// Who runs the command, as records name it. There is no number here, and names can be chosen in the
/// environment.
#[cfg(not(unix))]
pub(crate) fn user() -> String {
    "the user of this command".to_owned()
}

/// Whether a terminal understands escape sequences.
#[cfg(unix)]
pub(crate) fn has_escapes() -> bool {
    true
}

/// Whether a terminal understands escape sequences. The old console of Windows shows them as they are; Windows
/// Terminal and those that come with a Unix shell say who they are.
#[cfg(not(unix))]
pub(crate) fn has_escapes() -> bool {
    ["WT_SESSION", "TERM"].iter().any(|name| std::env::var_os(name).is_some_and(|v| !v.is_empty()))
}
