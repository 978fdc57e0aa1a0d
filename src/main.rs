//! The program; [`martd::commands`] is what it can do.

use std::process::ExitCode;

use martd::commands::Cli;

fn main() -> ExitCode {
    Cli::typed().run()
}
