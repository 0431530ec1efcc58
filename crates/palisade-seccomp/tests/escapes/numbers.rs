//! Numbers that are not those of this architecture: other interfaces, x32 and calls nobody knows.

use palisade_seccomp::{Arch, SeccompData, evaluate, profiles::Profile};

use crate::{ENOSYS, KILL, programs};

#[test]
fn attempt_20_calls_through_another_interface() {
    const I386: u32 = 0x4000_0003;
    const ARM: u32 = 0x4000_0028;
    for (_, program) in programs() {
        for nr in [0, 1, 3, 120, 359, u32::MAX] {
            for arch in [I386, ARM, 0, u32::MAX] {
                let data = SeccompData { nr, arch, ..SeccompData::default() };
                assert_eq!(evaluate(&program, &data), Ok(KILL), "{arch:#x} {nr}");
            }
        }
    }
}

#[test]
fn attempt_21_x32_numbers() {
    for profile in Profile::ALL {
        let program = profile.program(Arch::X86_64).unwrap();
        for nr in (0..600).map(|nr| nr | 0x4000_0000).chain([
            0x4000_0000,
            0x7fff_ffff,
            0x8000_0000,
            u32::MAX,
        ]) {
            let data =
                SeccompData { nr, arch: Arch::X86_64.audit_arch(), ..SeccompData::default() };
            assert_eq!(evaluate(&program, &data), Ok(KILL), "{profile} {nr:#x}");
        }
    }
}

#[test]
fn unknown_numbers_look_absent() {
    for (profile, program) in programs() {
        for nr in [470, 471, 500, 1000, 0x3fff_ffff] {
            let data =
                SeccompData { nr, arch: program.arch().audit_arch(), ..SeccompData::default() };
            assert_eq!(evaluate(&program, &data), Ok(ENOSYS), "{profile} {nr}");
        }
    }
}
