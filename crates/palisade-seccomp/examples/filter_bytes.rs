//! Writes the program of one profile, floor included, to standard output as an array of
//! `struct sock_filter`: what `seccomp(2)` takes and what `bwrap --seccomp FD` reads.
//!
//! ```text
//! cargo run -p palisade-seccomp --example filter_bytes -- python > python.bpf
//! bwrap --ro-bind / / --seccomp 3 python3 -c 'print("inside")' 3< python.bpf
//! ```

use std::error::Error;
use std::io::Write as _;

use palisade_seccomp::Arch;
use palisade_seccomp::profiles::Profile;

fn main() -> Result<(), Box<dyn Error>> {
    let name = std::env::args()
        .nth(1)
        .ok_or("usage: filter_bytes native|shell|python|node|jvm|lockdown")?;
    let profile: Profile = name.parse()?;
    let arch = Arch::native().ok_or("no filter can be made for this machine's architecture")?;
    std::io::stdout().write_all(&profile.program(arch)?.to_bytes())?;
    Ok(())
}
