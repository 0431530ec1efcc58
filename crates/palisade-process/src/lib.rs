//! Backend: Linux walls (namespaces, seccomp, Landlock, cgroups) built by a small static helper.
