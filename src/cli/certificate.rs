//! `certificate verify`

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::json;

use super::import::read_bounded;
use super::{Context, Failure};
use crate::error::ErrorCode;
use crate::vault::Certificate;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Check a certificate of a deletion; needs neither vault nor key
    Verify {
        /// The certificate
        file: PathBuf,
        /// The public key that must have signed it, as `tenantry status` of the vault shows it
        #[arg(long, value_name = "HEX")]
        signer: Option<String>,
    },
}

pub(super) fn run(context: &Context, command: Command) -> Result<(), Failure> {
    let Command::Verify { file, signer } = command;
    let refused = |message: &str| {
        let message = format!("{}: {message}", file.display());
        Failure::new(ErrorCode::IntegrityError, message)
    };
    let content = read_bounded(&file)
        .map_err(|message| Failure::usage(format!("{}: {message}", file.display())))?;
    let text = std::str::from_utf8(&content).ok();
    let certificate = text.and_then(Certificate::verify);
    let certificate = certificate.ok_or_else(|| refused("not a certificate, or it was changed"))?;
    if signer.as_ref().is_some_and(|signer| signer != certificate.signer()) {
        return Err(refused("signed by another key"));
    }
    let value = json!({
        "valid": true,
        "signer": certificate.signer(),
        "signer_compared": signer.is_some(),
        "certificate": certificate.as_str(),
    });
    context.output.answer(&value, || {
        let note = if signer.is_some() {
            "valid, and signed by that key"
        } else {
            "valid; give --signer to see whether that key signed it which should have"
        };
        format!("{}\n{note}", certificate.as_str())
    });
    Ok(())
}
