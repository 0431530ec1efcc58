//! TLS to servers: who is trusted, and the stream.
//!
//! Mozilla's roots are built in, so that what is trusted does not depend on the machine or on its
//! environment; an operator adds others. rustls with ring: no C library of the system's, and a build of
//! seconds.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        self, ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    },
};

use crate::{EgressError, Host};

/// Whom to trust. Cloning shares it.
#[derive(Clone)]
pub struct Tls {
    connector: TlsConnector,
}

/// The trust cannot be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// Not PEM, or no certificate in it.
    #[error("the PEM text has no certificate that can be read")]
    Pem,
    /// Not a certificate that can be trusted.
    #[error("a certificate cannot be used as a root: {0}")]
    Root(rustls::Error),
    /// The TLS library refuses its own protocol versions.
    #[error("TLS cannot be set up: {0}")]
    Setup(rustls::Error),
}

impl Tls {
    /// Trusts Mozilla's roots (<https://wiki.mozilla.org/CA>) as they were when this was built.
    ///
    /// # Errors
    /// [`TlsError::Setup`].
    pub fn new() -> Result<Self, TlsError> {
        Self::with_roots("")
    }

    /// Trusts the certificates in `pem` beside Mozilla's roots. Empty text adds none.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn with_roots(pem: &str) -> Result<Self, TlsError> {
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        let mut found = false;
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            roots.add(certificate.map_err(|_| TlsError::Pem)?).map_err(TlsError::Root)?;
            found = true;
        }
        if !found && !pem.trim().is_empty() {
            return Err(TlsError::Pem);
        }
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Setup)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // Tickets would tell the server which requests come from one machine.
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Self { connector: TlsConnector::from(Arc::new(config)) })
    }

    pub(super) async fn connect(
        &self,
        host: &Host,
        stream: TcpStream,
    ) -> Result<Stream, EgressError> {
        let name = match (host.name(), host.address()) {
            (_, Some(address)) => ServerName::IpAddress(address.into()),
            (Some(name), None) => ServerName::try_from(name.to_owned())
                .map_err(|_| EgressError::BadHost(host.to_string()))?,
            (None, None) => return Err(EgressError::BadHost(host.to_string())),
        };
        match self.connector.connect(name, stream).await {
            Ok(stream) => Ok(Stream::Tls(Box::new(stream))),
            Err(cause) => Err(EgressError::Tls { host: host.to_string(), cause }),
        }
    }
}

/// A connection to a server.
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
