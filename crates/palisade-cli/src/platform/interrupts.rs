//! Being interrupted: Ctrl-C, and what else asks a command to end.

#[cfg(unix)]
use tokio::signal::unix::{Signal as First, Signal as Second, SignalKind, signal};
#[cfg(windows)]
use tokio::signal::windows::{CtrlBreak as Second, CtrlC as First, ctrl_break, ctrl_c};

/// Ctrl-C and SIGTERM; on Windows Ctrl-C and Ctrl-Break. One value lives as long as the command: a signal that
/// comes while nobody waits is kept for whoever waits next.
pub(crate) struct Interrupts(Option<(First, Second)>);

#[cfg(unix)]
fn taken() -> std::io::Result<(First, Second)> {
    Ok((signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?))
}

#[cfg(windows)]
fn taken() -> std::io::Result<(First, Second)> {
    Ok((ctrl_c()?, ctrl_break()?))
}

impl Interrupts {
    /// Takes the signals over. Where that fails they end the process themselves, and everything with it.
    pub(crate) fn new() -> Self {
        Self(taken().ok())
    }

    /// Completes at the next one. Cancel-safe.
    pub(crate) async fn next(&mut self) {
        match &mut self.0 {
            Some((first, second)) => tokio::select! {
                _ = first.recv() => {}
                _ = second.recv() => {}
            },
            None => std::future::pending().await,
        }
    }
}
