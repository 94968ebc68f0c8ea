//! `--health`: asks the process beside this one, for checks in a container without a shell.

use std::process::ExitCode;

use super::{EX_CONFIG, flags::print};
use crate::{admin, env::Env, error::Chain};

/// Prints what `/ready` says. Nothing else of the configuration is read.
pub(super) fn health(env: Env) -> ExitCode {
    let address = admin::address_from_env(&env);
    let address = match env.check(address) {
        Ok(address) => address,
        Err(problems) => {
            problems.iter().for_each(|it| eprintln!("{it}"));
            return ExitCode::from(EX_CONFIG);
        }
    };
    match admin::ask(address) {
        Ok(answered) => {
            print(&answered.body);
            if answered.ready { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(err) => {
            eprintln!("{}", Chain(&err));
            ExitCode::FAILURE
        }
    }
}
