//! A program that nobody changed for it, through the proxy: Python's own client.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::sync::Arc;

use common::*;
use palisade_egress::proxy::Limits;
use tokio_rustls::{TlsAcceptor, rustls};

/// Fetches each URL and prints what came, or the status or error.
const FETCH: &str = r#"
import ssl, sys, urllib.error, urllib.request
context = ssl.create_default_context(cafile=sys.argv[1])
opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context))
for url in sys.argv[2:]:
    try:
        with opener.open(url, timeout=10) as answer:
            body = answer.read()
            print(answer.status, len(body), body[:20].decode())
    except urllib.error.HTTPError as error:
        print(error.code, error.headers["X-Palisade-Error"])
    except OSError as error:
        print(error)
"#;

#[tokio::test]
async fn python_fetches_what_is_granted_and_is_told_what_is_not() {
    let (plain, _) = web_server(|_| ok(&"plain ".repeat(50_000))).await;

    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            rustls::pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into()),
        )
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let (sealed, _) = server(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            use tokio::io::AsyncWriteExt as _;
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            head(&mut stream).await;
            let _ = stream.write_all(&ok(&"sealed ".repeat(100_000))).await;
            let _ = stream.shutdown().await;
        }
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let roots = folder.path().join("roots.pem");
    std::fs::write(&roots, certificate.pem()).unwrap();

    let right = rights(&["net.http:a.example:*"]);
    let at = proxy(guard_for(&["a.example", "b.example"]), right, Limits::default()).await;
    let run = tokio::process::Command::new("python3")
        .args(["-I", "-c", FETCH])
        .arg(&roots)
        .arg(format!("http://a.example:{plain}/"))
        .arg(format!("https://a.example:{sealed}/"))
        .arg(format!("http://b.example:{plain}/"))
        .arg(format!("https://b.example:{sealed}/"))
        .env("http_proxy", format!("http://{at}"))
        .env("https_proxy", format!("http://{at}"))
        .env_remove("no_proxy")
        .env_remove("NO_PROXY")
        .output()
        .await
        .expect("python3 is one of the project's tools");
    let said = String::from_utf8_lossy(&run.stdout);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 4, "{said}{}", String::from_utf8_lossy(&run.stderr));
    assert_eq!(lines[0], "200 300000 plain plain plain pl");
    assert_eq!(lines[1], "200 700000 sealed sealed sealed");
    assert_eq!(lines[2], "403 PAL-DENIED");
    assert!(lines[3].contains("403"), "{}", lines[3]);
}
