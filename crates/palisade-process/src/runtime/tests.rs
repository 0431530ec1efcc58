use palisade_sandbox::{Content, Program};

use super::*;

fn artifact(root: &Path, file: &str) -> Artifact {
    Artifact {
        content: Content { root: root.to_path_buf(), digest: [0; 32] },
        program: Program { runtime: Runtime::Native, file: file.to_owned(), args: Vec::new() },
        code: Vec::new(),
    }
}

/// A folder that looks like an installation of Python: its interpreter is a real program, so that its
/// loader is found.
fn python(root: &Path) -> PathBuf {
    let (bin, lib) = (root.join("bin"), root.join("lib/python3.12"));
    fs::create_dir_all(&bin).unwrap();
    fs::create_dir_all(&lib).unwrap();
    fs::write(lib.join("os.py"), "").unwrap();
    fs::copy("/bin/sh", bin.join("python3.12")).unwrap();
    std::os::unix::fs::symlink("python3.12", bin.join("python3")).unwrap();
    bin.join("python3")
}

#[test]
fn software_of_this_machine_gets_the_system_s_data_and_a_plugin_s_own_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    fs::copy("/bin/sh", root.join("own")).unwrap();
    let common =
        |needs: &Needs| COMMON_DATA.iter().filter(|p| needs.shown.contains_key(**p)).count();
    let there =
        COMMON_DATA.iter().map(Path::new).filter(|p| p.canonicalize().is_ok_and(|r| r == *p));
    assert_eq!(common(&resolve(&artifact(&root, "/bin/sh")).unwrap()), there.count());
    assert_eq!(common(&resolve(&artifact(&root, "own")).unwrap()), 0);
}

#[test]
fn a_granted_interpreter_comes_with_its_library_and_a_granted_git_with_its_commands() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    fs::create_dir(root.join("plugin")).unwrap();
    let interpreter = python(&root.join("py"));
    let mut needs = resolve(&artifact(&root.join("plugin"), "/bin/sh")).unwrap();
    let profile = needs.profile;
    needs.add_granted_program(interpreter.to_str().unwrap()).unwrap();
    let prefix = root.join("py").display().to_string();
    assert_eq!(needs.shown.get(&prefix), Some(&true), "{:?}", needs.shown);
    assert!(needs.path_dirs.contains(&format!("{prefix}/bin")));
    assert_eq!(needs.profile, profile, "a program that it may run loosens no filter");
    let git = root.join("git/git");
    fs::create_dir(root.join("git")).unwrap();
    fs::copy("/bin/sh", &git).unwrap();
    needs.add_granted_program(git.to_str().unwrap()).unwrap();
    for folder in GIT.iter().filter(|f| Path::new(f).is_dir()) {
        assert!(needs.shown.contains_key(*folder), "{folder}");
    }
}
