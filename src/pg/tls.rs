//! TLS, with a certificate and a key from files.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// What encrypts connections. A clone is a pointer.
#[derive(Clone)]
pub struct Tls(pub(super) TlsAcceptor);

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads a certificate with those that lead to its issuer, and its key, both as PEM.
    ///
    /// # Errors
    /// Which file cannot be used, and why.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, String> {
        let of = |path: &Path, error: &dyn fmt::Display| format!("{}: {error}", path.display());
        let chain = CertificateDer::pem_file_iter(certificate)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| of(certificate, &error))?;
        let private = PrivateKeyDer::from_pem_file(key).map_err(|error| of(key, &error))?;
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(chain, private)
            .map_err(|error| of(certificate, &error))?;
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }
}
