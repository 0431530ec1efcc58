//! Environment variables that no grant may hand to a plugin.
//!
//! The dynamic loader, the C library and interpreters run code or read configuration that such a
//! variable names, before the plugin's first line and in every program that it starts (ld.so(8),
//! environ(7), python(1), node(1), bash(1)). They are refused by name and by any pattern that covers
//! one of them.

/// Names, and with a trailing `*` all names that begin like this. In upper case.
const RUN_FOREIGN_CODE: &[&str] = &[
    "LD_*",
    "DYLD_*",
    "GCONV_PATH",
    "GLIBC_TUNABLES",
    "GETCONF_DIR",
    "HOSTALIASES",
    "LOCALDOMAIN",
    "LOCPATH",
    "MALLOC_TRACE",
    "NIS_PATH",
    "NLSPATH",
    "RESOLV_HOST_CONF",
    "RES_OPTIONS",
    "PYTHON*",
    "NODE_OPTIONS",
    "NODE_PATH",
    "NODE_REPL_EXTERNAL_MODULE",
    "NODE_EXTRA_CA_CERTS",
    "NPM_CONFIG_*",
    "BASH_ENV",
    "BASH_FUNC_*",
    "BASHOPTS",
    "SHELLOPTS",
    "ENV",
    "IFS",
    "PS4",
    "PROMPT_COMMAND",
    "PERL5*",
    "PERLLIB",
    "RUBYLIB",
    "RUBYOPT",
    "GEM_HOME",
    "GEM_PATH",
    "BUNDLE_GEMFILE",
    "LUA_INIT*",
    "LUA_PATH*",
    "LUA_CPATH*",
    "JAVA_TOOL_OPTIONS",
    "JAVA_OPTIONS",
    "_JAVA_OPTIONS",
    "JDK_JAVA_OPTIONS",
    "CLASSPATH",
    "DOTNET_STARTUP_HOOKS",
    "CORECLR_PROFILER*",
    "PHPRC",
    "PHP_INI_SCAN_DIR",
    "GIT_CONFIG*",
    "GIT_EXEC_PATH",
    "GIT_SSH*",
    "GIT_ASKPASS",
    "GIT_EXTERNAL_DIFF",
    "GIT_PROXY_COMMAND",
    "GIT_TEMPLATE_DIR",
    "OPENSSL_CONF",
    "OPENSSL_MODULES",
    "OPENSSL_ENGINES",
    "SSLKEYLOGFILE",
    "GTK_MODULES",
    "GTK_PATH",
    "GIO_EXTRA_MODULES",
    "GI_TYPELIB_PATH",
    "QT_PLUGIN_PATH",
    "GCC_EXEC_PREFIX",
    "COMPILER_PATH",
    "PALISADE_*",
];

/// The variable, or the group of variables (`LD_*`), that lets a loader run foreign code and that the
/// scope of an `env` capability would hand over: `scope` is a name, a prefix with a trailing `*`, or
/// `*`. Case is ignored, since some systems ignore it. `None` where the scope is harmless.
///
/// ```
/// use palisade_manifest::environment::foreign_code;
/// assert_eq!(foreign_code("LD_PRELOAD"), Some("LD_*"));
/// assert_eq!(foreign_code("NODE_*"), Some("NODE_OPTIONS"));
/// assert_eq!(foreign_code("APP_TOKEN"), None);
/// ```
#[must_use]
pub fn foreign_code(scope: &str) -> Option<&'static str> {
    let scope = scope.to_ascii_uppercase();
    let (asked, open) = match scope.strip_suffix('*') {
        Some(prefix) => (prefix, true),
        None => (scope.as_str(), false),
    };
    RUN_FOREIGN_CODE.iter().copied().find(|entry| match entry.strip_suffix('*') {
        Some(prefix) => asked.starts_with(prefix) || (open && prefix.starts_with(asked)),
        None => *entry == asked || (open && entry.starts_with(asked)),
    })
}

#[cfg(test)]
mod tests {
    use super::foreign_code;

    #[test]
    fn loaders_and_interpreters_are_covered_by_name_and_by_pattern() {
        for bad in [
            "LD_PRELOAD",
            "LD_AUDIT",
            "ld_preload",
            "LD_*",
            "L*",
            "*",
            "PYTHONPATH",
            "PYTHONSTARTUP",
            "PY*",
            "NODE_OPTIONS",
            "NODE_*",
            "BASH_ENV",
            "ENV",
            "GCONV_PATH",
            "GCONV*",
            "PERL5LIB",
            "JAVA*",
            "GIT_SSH_COMMAND",
        ] {
            assert!(foreign_code(bad).is_some(), "{bad} was let through");
        }
        for good in ["APP_TOKEN", "HOME", "LANG", "TZ", "ENVIRONMENT", "MY_LD_PRELOAD", "APP_*"] {
            assert_eq!(foreign_code(good), None);
        }
    }
}
