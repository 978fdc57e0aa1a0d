//! Where and how the protocol is served, as it is typed and as it is used.

use std::path::PathBuf;

use clap::Args;

use super::tls::Tls;
use crate::limits::Shares;
use crate::listen::Address;

const HEADING: &str = "PostgreSQL";

/// What the user types.
#[derive(Debug, Args)]
pub struct PgArgs {
    /// Where to serve the PostgreSQL protocol: ADDRESS:PORT, or unix:PATH; off when not given. Without
    /// TLS the address must be one of loopback
    #[arg(long, help_heading = HEADING, env = "MARTD_PG_LISTEN", value_name = "ADDR")]
    pg_listen: Option<Address>,

    /// Certificate for the PostgreSQL protocol with its chain, as PEM. Clients of other machines must then
    /// use TLS
    #[arg(long, help_heading = HEADING, env = "MARTD_PG_TLS_CERT", value_name = "FILE")]
    pg_tls_cert: Option<PathBuf>,

    /// The certificate's private key, as PEM
    #[arg(long, help_heading = HEADING, env = "MARTD_PG_TLS_KEY", value_name = "FILE")]
    pg_tls_key: Option<PathBuf>,
}

/// What the program uses.
#[derive(Debug, Clone)]
pub struct PgSettings {
    /// Where it is served, if it is.
    pub listen: Option<Address>,
    /// What encrypts its connections.
    pub tls: Option<Tls>,
    /// The most that rows may take that wait for its clients, in bytes.
    pub waiting_bytes: u64,
    /// What its catalogs may take in an engine, in bytes.
    pub catalogs_bytes: u64,
}

impl PgArgs {
    /// Whether the protocol is served.
    pub fn is_served(&self) -> bool {
        self.pg_listen.is_some()
    }

    /// Reads the files.
    ///
    /// # Errors
    /// Which setting cannot be used, and why.
    pub fn into_settings(self, shares: Shares) -> Result<PgSettings, (&'static str, String)> {
        const CERT: &str = "MARTD_PG_TLS_CERT";
        let tls = match (self.pg_tls_cert, self.pg_tls_key) {
            (Some(cert), Some(key)) => Some(Tls::load(cert, key).map_err(|why| (CERT, why))?),
            (None, None) => None,
            _ => return Err((CERT, "goes with MARTD_PG_TLS_KEY; set both, or none".to_owned())),
        };
        match &self.pg_listen {
            Some(Address::Tcp(address)) if !address.ip().is_loopback() && tls.is_none() => {
                let problem = format!(
                    "{address} is no loopback address, and passwords are in clear text: set \
                     MARTD_PG_TLS_CERT and MARTD_PG_TLS_KEY"
                );
                return Err(("MARTD_PG_LISTEN", problem));
            }
            _ => {}
        }
        let Shares { waiting_rows, catalogs, .. } = shares;
        let (waiting_bytes, catalogs_bytes) = (waiting_rows, catalogs);
        Ok(PgSettings { listen: self.pg_listen, tls, waiting_bytes, catalogs_bytes })
    }
}
