//! What each profile answers, call by call, as a reviewed snapshot; and how long the programs are.

use palisade_seccomp::profiles::{Profile, floor};
use palisade_seccomp::{Arch, compile, disassemble, listing};

#[test]
fn floor_listing_is_as_reviewed() {
    insta::assert_snapshot!("floor_x86_64", listing(&floor().unwrap(), Arch::X86_64));
}

#[test]
fn profile_listings_are_as_reviewed() {
    for profile in Profile::ALL {
        let policy = profile.policy().unwrap();
        insta::assert_snapshot!(format!("{profile}_x86_64"), listing(&policy, Arch::X86_64));
    }
}

#[test]
fn listings_of_what_is_loaded_are_as_reviewed() {
    for arch in Arch::ALL {
        let policy = Profile::Python.with_floor().unwrap();
        insta::assert_snapshot!(format!("floor_python_{arch}"), listing(&policy, arch));
    }
    let policy = Profile::Lockdown.with_floor().unwrap();
    insta::assert_snapshot!("floor_lockdown_x86_64", listing(&policy, Arch::X86_64));
}

#[test]
fn loaded_program_is_as_reviewed() {
    let program = Profile::Native.program(Arch::X86_64).unwrap();
    insta::assert_snapshot!("floor_native_x86_64_program", disassemble(&program));
}

/// Loading and JIT compiling cost grows with the length, so it is held down here.
#[test]
fn programs_stay_short() {
    for arch in Arch::ALL {
        println!("floor {arch}: {} instructions", compile(&floor().unwrap(), arch).unwrap().len());
        for profile in Profile::ALL {
            let len = profile.program(arch).unwrap().len();
            println!("floor+{profile} {arch}: {len} instructions");
            assert!(len <= 220, "floor+{profile} on {arch} has {len} instructions");
        }
    }
}
