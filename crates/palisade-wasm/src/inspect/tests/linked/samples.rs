//! One real function of each interface, as its WIT has it, in WebAssembly text.

/// What a component imports to have a function of an interface.
pub(super) struct Sample {
    /// `namespace:package/interface`.
    pub(super) interface: &'static str,
    /// As the table has it.
    pub(super) version: &'static str,
    /// Imports of the interfaces that its types come from; `{v}` is the version.
    pub(super) before: &'static [&'static str],
    /// What the instance has.
    pub(super) body: &'static [&'static str],
}

impl Sample {
    /// Whether there is nothing in it that somebody has to provide.
    pub(super) fn is_types_only(&self) -> bool {
        !self.body.iter().any(|part| part.contains("(func") || part.contains("sub resource"))
    }
}

const fn sample(
    interface: &'static str,
    version: &'static str,
    before: &'static [&'static str],
    body: &'static [&'static str],
) -> Sample {
    Sample { interface, version, before, body }
}

const OURS: &str = "0.1.0";
const V2: &str = "0.2";
const V3: &str = "0.3";

/// The failure of `palisade:plugin`.
const FAILURE: &str = r#"
    (type $failure' (record (field "code" string) (field "message" string)
        (field "rule" (option string)) (field "hint" (option string))
        (field "retry-after-ms" (option u64))))
    (export "failure" (type $failure (eq $failure')))"#;
const POLL: &str = r#"
    (import "wasi:io/poll@{v}" (instance $poll (export "pollable" (type (sub resource)))))
    (alias export $poll "pollable" (type $pollable'))"#;
const STREAMS: &str = r#"
    (import "wasi:io/streams@{v}" (instance $streams
        (export "input-stream" (type (sub resource)))
        (export "output-stream" (type (sub resource)))))
    (alias export $streams "input-stream" (type $input'))
    (alias export $streams "output-stream" (type $output'))"#;
const TERMINAL_INPUT: &str = r#"
    (import "wasi:cli/terminal-input@{v}" (instance $terminal
        (export "terminal-input" (type (sub resource)))))
    (alias export $terminal "terminal-input" (type $terminal'))"#;
const TERMINAL_OUTPUT: &str = r#"
    (import "wasi:cli/terminal-output@{v}" (instance $terminal
        (export "terminal-output" (type (sub resource)))))
    (alias export $terminal "terminal-output" (type $terminal'))"#;
const DESCRIPTOR: &str = r#"
    (import "wasi:filesystem/types@{v}" (instance $types
        (export "descriptor" (type (sub resource)))))
    (alias export $types "descriptor" (type $descriptor'))"#;
/// The error of standard streams in WASI 0.3.
const STREAM_ERROR: &str = r#"
    (type $error' (enum "io" "illegal-byte-sequence" "pipe"))
    (export "error-code" (type $error (eq $error')))"#;
const WRITE_VIA_STREAM: &str = r#"
    (export "write-via-stream"
        (func (param "data" (stream u8)) (result (future (result (error $error))))))"#;
const TCP: &str = r#"
    (import "wasi:sockets/tcp@{v}" (instance $sockets (export "tcp-socket" (type (sub resource)))))
    (alias export $sockets "tcp-socket" (type $socket'))"#;
const UDP: &str = r#"
    (import "wasi:sockets/udp@{v}" (instance $sockets (export "udp-socket" (type (sub resource)))))
    (alias export $sockets "udp-socket" (type $socket'))"#;
/// The error and the families of `wasi:sockets` 0.2.
const SOCKET_TYPES: &str = r#"
    (type $family' (enum "ipv4" "ipv6"))
    (export "ip-address-family" (type $family (eq $family')))
    (type $error' (enum "unknown" "access-denied" "not-supported" "invalid-argument" "out-of-memory"
        "timeout" "concurrency-conflict" "not-in-progress" "would-block" "invalid-state"
        "new-socket-limit" "address-not-bindable" "address-in-use" "remote-unreachable"
        "connection-refused" "connection-reset" "connection-aborted" "datagram-too-large"
        "name-unresolvable" "temporary-resolver-failure" "permanent-resolver-failure"))
    (export "error-code" (type $error (eq $error')))"#;
const CREATE_TCP: &str = r#"
    (export "tcp-socket" (type $socket (eq $socket')))
    (export "create-tcp-socket" (func (param "address-family" $family)
        (result (result (own $socket) (error $error)))))"#;
const CREATE_UDP: &str = r#"
    (export "udp-socket" (type $socket (eq $socket')))
    (export "create-udp-socket" (func (param "address-family" $family)
        (result (result (own $socket) (error $error)))))"#;
/// The error of `wasi:http`.
const HTTP_ERROR: &str = r#"
    (type $dns' (record (field "rcode" (option string)) (field "info-code" (option u16))))
    (export "DNS-error-payload" (type $dns (eq $dns')))
    (type $tls' (record (field "alert-id" (option u8)) (field "alert-message" (option string))))
    (export "TLS-alert-received-payload" (type $tls (eq $tls')))
    (type $size' (record (field "field-name" (option string)) (field "field-size" (option u32))))
    (export "field-size-payload" (type $size (eq $size')))
    (type $error' (variant
        (case "DNS-timeout") (case "DNS-error" $dns)
        (case "destination-not-found") (case "destination-unavailable")
        (case "destination-IP-prohibited") (case "destination-IP-unroutable")
        (case "connection-refused") (case "connection-terminated") (case "connection-timeout")
        (case "connection-read-timeout") (case "connection-write-timeout")
        (case "connection-limit-reached") (case "TLS-protocol-error")
        (case "TLS-certificate-error") (case "TLS-alert-received" $tls)
        (case "HTTP-request-denied") (case "HTTP-request-length-required")
        (case "HTTP-request-body-size" (option u64)) (case "HTTP-request-method-invalid")
        (case "HTTP-request-URI-invalid") (case "HTTP-request-URI-too-long")
        (case "HTTP-request-header-section-size" (option u32))
        (case "HTTP-request-header-size" (option $size))
        (case "HTTP-request-trailer-section-size" (option u32))
        (case "HTTP-request-trailer-size" $size) (case "HTTP-response-incomplete")
        (case "HTTP-response-header-section-size" (option u32))
        (case "HTTP-response-header-size" $size) (case "HTTP-response-body-size" (option u64))
        (case "HTTP-response-trailer-section-size" (option u32))
        (case "HTTP-response-trailer-size" $size)
        (case "HTTP-response-transfer-coding" (option string))
        (case "HTTP-response-content-coding" (option string)) (case "HTTP-response-timeout")
        (case "HTTP-upgrade-failed") (case "HTTP-protocol-error") (case "loop-detected")
        (case "configuration-error") (case "internal-error" (option string))))
    (export "error-code" (type $error (eq $error')))"#;
const REQUEST_2: &str = r#"
    (import "wasi:http/types@{v}" (instance $types
        (export "outgoing-request" (type (sub resource)))
        (export "request-options" (type (sub resource)))
        (export "future-incoming-response" (type (sub resource)))))
    (alias export $types "outgoing-request" (type $request'))
    (alias export $types "request-options" (type $options'))
    (alias export $types "future-incoming-response" (type $response'))"#;
const REQUEST_3: &str = r#"
    (import "wasi:http/types@{v}" (instance $types
        (export "request" (type (sub resource))) (export "response" (type (sub resource)))))
    (alias export $types "request" (type $request'))
    (alias export $types "response" (type $response'))"#;

const ARGUMENTS: &str = r#"(export "get-arguments" (func (result (list string))))"#;
const EXIT: &str = r#"(export "exit" (func (param "status" (result))))"#;
const NUMBER: &str = r#"(export "get-random-u64" (func (result u64)))"#;
const INSECURE: &str = r#"(export "get-insecure-random-u64" (func (result u64)))"#;
const NOW: &str = r#"(export "now" (func (result u64)))"#;
const INPUT: &str = r#"(export "terminal-input" (type (sub resource)))"#;
const OUTPUT: &str = r#"(export "terminal-output" (type (sub resource)))"#;
const GET_STDIN: &str = r#"(export "terminal-input" (type $t (eq $terminal')))
    (export "get-terminal-stdin" (func (result (option (own $t)))))"#;
const GET_STDOUT: &str = r#"(export "terminal-output" (type $t (eq $terminal')))
    (export "get-terminal-stdout" (func (result (option (own $t)))))"#;
const GET_STDERR: &str = r#"(export "terminal-output" (type $t (eq $terminal')))
    (export "get-terminal-stderr" (func (result (option (own $t)))))"#;
const DIRECTORIES: &str = r#"(export "descriptor" (type $d (eq $descriptor')))
    (export "get-directories" (func (result (list (tuple (own $d) string)))))"#;
const FIELDS: &str = r#"(export "fields" (type $f (sub resource)))
    (export "[constructor]fields" (func (result (own $f))))"#;

/// Of each interface in each version in which it is provided.
pub(super) const SAMPLES: &[Sample] = &[
    sample("palisade:plugin/types", OURS, &[], &[FAILURE]),
    sample(
        "palisade:plugin/log",
        OURS,
        &[],
        &[r#"(type $level' (enum "trace" "debug" "info" "warn" "error"))
            (export "level" (type $level (eq $level')))
            (export "write" (func (param "level" $level) (param "message" string)
                (param "fields" (list (tuple string string))) (result bool)))"#],
    ),
    sample("palisade:plugin/clock", OURS, &[], &[r#"(export "monotonic-ns" (func (result u64)))"#]),
    sample("palisade:plugin/random", OURS, &[], &[r#"(export "number" (func (result u64)))"#]),
    sample(
        "palisade:plugin/storage",
        OURS,
        &[],
        &[
            FAILURE,
            r#"(export "delete"
                (func (param "key" string) (result (result bool (error $failure)))))"#,
        ],
    ),
    sample(
        "palisade:plugin/event-bus",
        OURS,
        &[],
        &[
            FAILURE,
            r#"(type $published' (record
                    (field "queued" u32) (field "dropped" u32) (field "blocked" u32)))
                (export "published" (type $published (eq $published')))
                (export "publish" (func (param "subject" string) (param "data" string)
                    (result (result $published (error $failure)))))"#,
        ],
    ),
    sample(
        "palisade:plugin/http",
        OURS,
        &[],
        &[
            FAILURE,
            r#"(type $request' (record (field "url" string) (field "method" (option string))
                    (field "headers" (list (tuple string string)))
                    (field "body" (option (list u8))) (field "follow-redirects" bool)
                    (field "timeout-ms" (option u32))))
                (export "request" (type $request (eq $request')))
                (type $response' (record (field "status" u16) (field "url" string)
                    (field "headers" (list (tuple string string))) (field "body" (list u8))
                    (field "redirects" u32)))
                (export "response" (type $response (eq $response')))
                (export "fetch" (func (param "request" $request)
                    (result (result $response (error $failure)))))"#,
        ],
    ),
    sample(
        "palisade:plugin/host-call",
        OURS,
        &[],
        &[
            FAILURE,
            r#"(export "call" (func (param "method" string) (param "params" string)
                (result (result string (error $failure)))))"#,
        ],
    ),
    sample(
        "palisade:plugin/plugin-call",
        OURS,
        &[],
        &[
            FAILURE,
            r#"(export "call" (func (param "plugin" string) (param "tool" string)
                (param "args" string) (result (result string (error $failure)))))"#,
        ],
    ),
    sample(
        "palisade:plugin/secrets",
        OURS,
        &[],
        &[
            FAILURE,
            r#"(export "get"
                (func (param "name" string) (result (result string (error $failure)))))"#,
        ],
    ),
    sample(
        "wasi:io/error",
        V2,
        &[],
        &[r#"(export "error" (type $e (sub resource)))
            (export "[method]error.to-debug-string"
                (func (param "self" (borrow $e)) (result string)))"#],
    ),
    sample(
        "wasi:io/poll",
        V2,
        &[],
        &[r#"(export "pollable" (type $p (sub resource)))
            (export "[method]pollable.ready" (func (param "self" (borrow $p)) (result bool)))"#],
    ),
    sample(
        "wasi:io/streams",
        V2,
        &[POLL],
        &[r#"(export "pollable" (type $p (eq $pollable')))
            (export "input-stream" (type $in (sub resource)))
            (export "[method]input-stream.subscribe"
                (func (param "self" (borrow $in)) (result (own $p))))"#],
    ),
    sample("wasi:clocks/monotonic-clock", V2, &[], &[NOW]),
    sample("wasi:clocks/monotonic-clock", V3, &[], &[NOW]),
    sample(
        "wasi:clocks/wall-clock",
        V2,
        &[],
        &[r#"(type $time' (record (field "seconds" u64) (field "nanoseconds" u32)))
            (export "datetime" (type $time (eq $time')))
            (export "now" (func (result $time)))"#],
    ),
    sample(
        "wasi:clocks/system-clock",
        V3,
        &[],
        &[r#"(type $time' (record (field "seconds" s64) (field "nanoseconds" u32)))
            (export "instant" (type $time (eq $time')))
            (export "now" (func (result $time)))"#],
    ),
    sample(
        "wasi:clocks/types",
        V3,
        &[],
        &[r#"(type $duration u64) (export "duration" (type (eq $duration)))"#],
    ),
    sample("wasi:random/random", V2, &[], &[NUMBER]),
    sample("wasi:random/random", V3, &[], &[NUMBER]),
    sample("wasi:random/insecure", V2, &[], &[INSECURE]),
    sample("wasi:random/insecure", V3, &[], &[INSECURE]),
    sample(
        "wasi:random/insecure-seed",
        V2,
        &[],
        &[r#"(export "insecure-seed" (func (result (tuple u64 u64))))"#],
    ),
    sample(
        "wasi:random/insecure-seed",
        V3,
        &[],
        &[r#"(export "get-insecure-seed" (func (result (tuple u64 u64))))"#],
    ),
    sample("wasi:cli/environment", V2, &[], &[ARGUMENTS]),
    sample("wasi:cli/environment", V3, &[], &[ARGUMENTS]),
    sample(
        "wasi:cli/stdin",
        V2,
        &[STREAMS],
        &[r#"(export "input-stream" (type $s (eq $input')))
            (export "get-stdin" (func (result (own $s))))"#],
    ),
    sample(
        "wasi:cli/stdin",
        V3,
        &[],
        &[
            STREAM_ERROR,
            r#"(export "read-via-stream"
                (func (result (tuple (stream u8) (future (result (error $error)))))))"#,
        ],
    ),
    sample(
        "wasi:cli/stdout",
        V2,
        &[STREAMS],
        &[r#"(export "output-stream" (type $s (eq $output')))
            (export "get-stdout" (func (result (own $s))))"#],
    ),
    sample("wasi:cli/stdout", V3, &[], &[STREAM_ERROR, WRITE_VIA_STREAM]),
    sample(
        "wasi:cli/stderr",
        V2,
        &[STREAMS],
        &[r#"(export "output-stream" (type $s (eq $output')))
            (export "get-stderr" (func (result (own $s))))"#],
    ),
    sample("wasi:cli/stderr", V3, &[], &[STREAM_ERROR, WRITE_VIA_STREAM]),
    sample("wasi:cli/exit", V2, &[], &[EXIT]),
    sample("wasi:cli/exit", V3, &[], &[EXIT]),
    sample("wasi:cli/types", V3, &[], &[STREAM_ERROR]),
    sample("wasi:cli/terminal-input", V2, &[], &[INPUT]),
    sample("wasi:cli/terminal-input", V3, &[], &[INPUT]),
    sample("wasi:cli/terminal-output", V2, &[], &[OUTPUT]),
    sample("wasi:cli/terminal-output", V3, &[], &[OUTPUT]),
    sample("wasi:cli/terminal-stdin", V2, &[TERMINAL_INPUT], &[GET_STDIN]),
    sample("wasi:cli/terminal-stdin", V3, &[TERMINAL_INPUT], &[GET_STDIN]),
    sample("wasi:cli/terminal-stdout", V2, &[TERMINAL_OUTPUT], &[GET_STDOUT]),
    sample("wasi:cli/terminal-stdout", V3, &[TERMINAL_OUTPUT], &[GET_STDOUT]),
    sample("wasi:cli/terminal-stderr", V2, &[TERMINAL_OUTPUT], &[GET_STDERR]),
    sample("wasi:cli/terminal-stderr", V3, &[TERMINAL_OUTPUT], &[GET_STDERR]),
    sample(
        "wasi:filesystem/types",
        V2,
        &[],
        &[r#"(export "descriptor" (type $d (sub resource)))
            (export "[method]descriptor.is-same-object" (func
                (param "self" (borrow $d)) (param "other" (borrow $d)) (result bool)))"#],
    ),
    sample(
        "wasi:filesystem/types",
        V3,
        &[],
        &[r#"(export "descriptor" (type $d (sub resource)))
            (export "[method]descriptor.is-same-object" (func async
                (param "self" (borrow $d)) (param "other" (borrow $d)) (result bool)))"#],
    ),
    sample("wasi:filesystem/preopens", V2, &[DESCRIPTOR], &[DIRECTORIES]),
    sample("wasi:filesystem/preopens", V3, &[DESCRIPTOR], &[DIRECTORIES]),
    sample("wasi:http/types", V2, &[], &[FIELDS]),
    sample("wasi:http/types", V3, &[], &[FIELDS]),
    sample(
        "wasi:http/outgoing-handler",
        V2,
        &[REQUEST_2],
        &[
            HTTP_ERROR,
            r#"(export "outgoing-request" (type $request (eq $request')))
            (export "request-options" (type $options (eq $options')))
            (export "future-incoming-response" (type $response (eq $response')))
            (export "handle" (func (param "request" (own $request))
                (param "options" (option (own $options)))
                (result (result (own $response) (error $error)))))"#,
        ],
    ),
    sample(
        "wasi:http/client",
        V3,
        &[REQUEST_3],
        &[
            HTTP_ERROR,
            r#"(export "request" (type $request (eq $request')))
            (export "response" (type $response (eq $response')))
            (export "send" (func async (param "request" (own $request))
                (result (result (own $response) (error $error)))))"#,
        ],
    ),
    sample("wasi:sockets/network", V2, &[], &[r#"(export "network" (type (sub resource)))"#]),
    sample(
        "wasi:sockets/instance-network",
        V2,
        &[r#"
            (import "wasi:sockets/network@{v}" (instance $types
                (export "network" (type (sub resource)))))
            (alias export $types "network" (type $network'))"#],
        &[r#"(export "network" (type $network (eq $network')))
            (export "instance-network" (func (result (own $network))))"#],
    ),
    sample(
        "wasi:sockets/tcp",
        V2,
        &[],
        &[r#"(export "tcp-socket" (type $socket (sub resource)))
            (export "[method]tcp-socket.is-listening"
                (func (param "self" (borrow $socket)) (result bool)))"#],
    ),
    sample(
        "wasi:sockets/types",
        V3,
        &[],
        &[r#"(export "tcp-socket" (type $socket (sub resource)))
            (export "[method]tcp-socket.get-is-listening"
                (func (param "self" (borrow $socket)) (result bool)))"#],
    ),
    sample("wasi:sockets/tcp-create-socket", V2, &[TCP], &[SOCKET_TYPES, CREATE_TCP]),
    sample(
        "wasi:sockets/udp",
        V2,
        &[POLL],
        &[r#"(export "pollable" (type $pollable (eq $pollable')))
            (export "udp-socket" (type $socket (sub resource)))
            (export "[method]udp-socket.subscribe"
                (func (param "self" (borrow $socket)) (result (own $pollable))))"#],
    ),
    sample("wasi:sockets/udp-create-socket", V2, &[UDP], &[SOCKET_TYPES, CREATE_UDP]),
    sample(
        "wasi:sockets/ip-name-lookup",
        V2,
        &[POLL],
        &[r#"(export "pollable" (type $pollable (eq $pollable')))
            (export "resolve-address-stream" (type $addresses (sub resource)))
            (export "[method]resolve-address-stream.subscribe"
                (func (param "self" (borrow $addresses)) (result (own $pollable))))"#],
    ),
    sample(
        "wasi:sockets/ip-name-lookup",
        V3,
        &[],
        &[r#"
            (type $v4' (tuple u8 u8 u8 u8))
            (export "ipv4-address" (type $v4 (eq $v4')))
            (type $v6' (tuple u16 u16 u16 u16 u16 u16 u16 u16))
            (export "ipv6-address" (type $v6 (eq $v6')))
            (type $address' (variant (case "ipv4" $v4) (case "ipv6" $v6)))
            (export "ip-address" (type $address (eq $address')))
            (type $error' (variant (case "access-denied") (case "invalid-argument")
                (case "name-unresolvable") (case "temporary-resolver-failure")
                (case "permanent-resolver-failure") (case "other" (option string))))
            (export "error-code" (type $error (eq $error')))
            (export "resolve-addresses" (func async (param "name" string)
                (result (result (list $address) (error $error)))))"#],
    ),
];

/// Of interfaces of WASI, and of others that are in use, that are provided in no version.
pub(super) const ELSEWHERE: &[Sample] = &[
    sample(
        "wasi:clocks/timezone",
        V3,
        &[],
        &[r#"(export "to-debug-string" (func (result string)))"#],
    ),
    sample("wasi:cli/run", V2, &[], &[r#"(export "run" (func (result (result))))"#]),
    sample("wasi:http/incoming-handler", V2, &[], &[r#"(export "handle" (func))"#]),
    sample("wasi:http/handler", V3, &[], &[r#"(export "handle" (func))"#]),
    sample("wasi:keyvalue/store", V2, &[], &[r#"(export "open" (func))"#]),
    sample("wasi:config/store", V2, &[], &[r#"(export "get" (func))"#]),
    sample("wasi:nn/graph", V2, &[], &[r#"(export "load" (func))"#]),
    sample("wasi:tls/types", V2, &[], &[r#"(export "connect" (func))"#]),
    sample("wasi:logging/logging", V2, &[], &[r#"(export "log" (func))"#]),
];
