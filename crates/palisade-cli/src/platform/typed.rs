//! Typing that is not shown.

use crate::trouble::Trouble;

/// Reads a line of at most `most` bytes from the terminal that is not shown.
#[cfg(unix)]
pub(crate) fn line(prompt: &str, most: usize) -> Result<Vec<u8>, Trouble> {
    unix::line(prompt, most)
        .map_err(|error| Trouble::usage(format!("the value cannot be read: {error}")))
}

/// Refused: nothing here keeps what is typed from being shown.
#[cfg(not(unix))]
pub(crate) fn line(_: &str, _: usize) -> Result<Vec<u8>, Trouble> {
    Err(Trouble::usage("a value cannot be typed here: on this system it would be shown")
        .hint("give it on standard input, as in: palisade secret set NAME < FILE"))
}

#[cfg(unix)]
mod unix {
    use std::io::{self, Read as _, Write as _};

    use rustix::termios::{
        LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr,
    };

    struct Restore(Termios);
    impl Drop for Restore {
        fn drop(&mut self) {
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
        }
    }

    /// The terminal is put right again however this ends.
    pub(super) fn line(prompt: &str, most: usize) -> io::Result<Vec<u8>> {
        let mut err = io::stderr().lock();
        write!(err, "{prompt}")?;
        err.flush()?;
        let before = tcgetattr(io::stdin())?;
        let mut silent = before.clone();
        // Byte by byte, signals too: Ctrl-C would end the command before the terminal is put right, and a
        // line of the terminal's own has at most 4095 bytes.
        silent.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
        silent.special_codes[SpecialCodeIndex::VMIN] = 1;
        silent.special_codes[SpecialCodeIndex::VTIME] = 0;
        let _restore = Restore(before);
        tcsetattr(io::stdin(), OptionalActions::Flush, &silent)?;
        let mut line = Vec::with_capacity(most + 1);
        let mut byte = [0u8; 1];
        while line.len() < most && io::stdin().read(&mut byte)? == 1 {
            match byte {
                [b'\n' | b'\r' | 4] => break,
                // Ctrl-C, Ctrl-\.
                [3 | 28] => return Err(io::Error::new(io::ErrorKind::Interrupted, "given up")),
                // Ctrl-U.
                [21] => line.clear(),
                // Backspace takes a whole character.
                [8 | 127] => while line.pop().is_some_and(|b| b & 0xC0 == 0x80) {},
                _ => line.extend_from_slice(&byte),
            }
        }
        writeln!(err)?;
        Ok(line)
    }
}
