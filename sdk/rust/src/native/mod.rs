//! A plugin as a process: the protocol on a socket, threads for handlers.

mod base64;
mod call_state;
mod descriptor;
mod dispatch;
mod errors;
mod pool;
pub(crate) mod services;
mod session;
mod wire;

use std::{io, process::ExitCode};

pub(crate) use call_state::CallState;
use descriptor::Socket;
pub(crate) use session::Session;

use crate::plugin::Plugin;

impl Plugin {
    /// Serves the host on the socket that Palisade opened, until the host ends the plugin; to be given
    /// back from `main`. Handlers that still run then end with the process.
    ///
    /// Started by hand with `--contributes`: prints what belongs in the manifest.
    #[must_use]
    pub fn run(self) -> ExitCode {
        let served = match descriptor::take() {
            Some(socket) => self.serve(socket),
            None if std::env::args().skip(1).eq(["--contributes".to_owned()]) => {
                println!("{:#}", self.contributes());
                self.mistake.map_or(Ok(()), |mistake| Err(io::Error::other(mistake)))
            }
            None => Err(io::Error::other(
                "This is a Palisade plugin: there is no socket on descriptor 3. Start it with\n  \
                 palisade run DIR\nor print what belongs in its manifest with --contributes.",
            )),
        };
        match served {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        }
    }

    /// As [`run`](Plugin::run), on a connected socket: a Unix one, and a TCP one where the system has none.
    ///
    /// # Errors
    /// `InvalidInput` where the plugin is not well made (two tools of one name), `InvalidData` where the host
    /// broke the protocol.
    pub fn serve(self, socket: Socket) -> io::Result<()> {
        if let Some(mistake) = self.mistake {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, mistake));
        }
        Session::run(self.handlers, socket).map_err(|breach| {
            let text = format!("palisade: the connection ended: {breach}");
            io::Error::new(io::ErrorKind::InvalidData, text)
        })
    }
}
