//! `martd healthcheck`: whether the martd of this container is ready, without curl or a shell.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::ExitCode;

use clap::Args;

use crate::http::client::{Client, ServerAddress};
use crate::listen::Address;

/// What `healthcheck` needs: the settings of the martd that it asks about.
#[derive(Debug, Args)]
pub struct HealthcheckArgs {
    /// The martd to ask, HOST:PORT or unix:PATH [default: where MARTD_ADMIN_LISTEN or MARTD_LISTEN
    /// say that it listens]
    #[arg(long, env = "MARTD_SERVER", value_name = "ADDR")]
    server: Option<ServerAddress>,

    /// As in `serve`
    #[arg(long, env = "MARTD_LISTEN", value_name = "ADDR", default_value = "127.0.0.1:8321")]
    listen: Address,

    /// As in `serve`
    #[arg(long, env = "MARTD_ADMIN_LISTEN", value_name = "ADDR")]
    admin_listen: Option<Address>,
}

pub(super) async fn run(args: HealthcheckArgs) -> Result<ExitCode, String> {
    let server = args.server.unwrap_or_else(|| {
        let listen = args.admin_listen.unwrap_or(args.listen);
        reachable(listen)
    });
    // Docker keeps all codes but 0 and 1 for itself.
    let reply = Client::new(server, None).get("/readyz").await;
    let reply = reply.map_err(|error| error.to_string())?;
    if reply.status != 200 {
        return Err(reply.problem().await.to_string());
    }
    println!("ready");
    Ok(ExitCode::SUCCESS)
}

/// Where a martd that listens there can be asked from the same machine.
fn reachable(listen: Address) -> ServerAddress {
    match listen {
        Address::Unix(path) => ServerAddress::Unix(path),
        Address::Tcp(mut address) => {
            if address.ip().is_unspecified() {
                address.set_ip(match address.ip() {
                    IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                    IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
                });
            }
            ServerAddress::Tcp(address.to_string())
        }
    }
}
