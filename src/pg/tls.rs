//! TLS, with a certificate and a key from files, which can be read again.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tracing::{error, info};

/// What encrypts connections. A clone is a pointer.
#[derive(Clone)]
pub struct Tls(Arc<Files>);

struct Files {
    certificate: PathBuf,
    key: PathBuf,
    config: ArcSwap<ServerConfig>,
}

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
    pub fn load(certificate: PathBuf, key: PathBuf) -> Result<Self, String> {
        let config = ArcSwap::from_pointee(read(&certificate, &key)?);
        Ok(Self(Arc::new(Files { certificate, key, config })))
    }

    /// Reads the files again, for connections that come from here on. When they are wrong, the old ones stay.
    pub fn reload(&self) {
        let Files { certificate, key, config } = &*self.0;
        match read(certificate, key) {
            Ok(read) => {
                info!("certificate reloaded");
                config.store(Arc::new(read));
            }
            Err(reason) => error!(reason, "the certificate is wrong: the old one stays"),
        }
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        self.0.config.load_full().into()
    }
}

fn read(certificate: &Path, key: &Path) -> Result<ServerConfig, String> {
    let of = |path: &Path, error: &dyn fmt::Display| format!("{}: {error}", path.display());
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| of(certificate, &error))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| of(key, &error))?;
    ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(|error| of(certificate, &error))
}
