//! `init`

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;

use serde_json::json;

use super::{Context, Failure};
use crate::clock::SystemClock;
use crate::store::DataDir;
use crate::vault::{self, KdfCost};

pub(super) fn run(context: &Context) -> Result<(), Failure> {
    // Before the passphrase is asked for: it would be asked for in vain.
    let directory = DataDir::create(context.data_dir())?;
    let passphrase = context.common.key.passphrase.choose(context.environment.as_ref())?;
    vault::create(&directory, &passphrase, KdfCost::DEFAULT, &SystemClock)?;
    if context.settings.database.sqlite_root.is_none() {
        let databases = context.settings.pool_options(directory.path()).database.sqlite_root;
        let made = DirBuilder::new().mode(0o700).recursive(true).create(&databases);
        made.map_err(|error| Failure::io(format!("making {}", databases.display()), &error))?;
    }
    let path = directory.path().display().to_string();
    context.output.answer(&json!({ "data_dir": path }), || {
        format!(
            "created {path}\n\nThe passphrase cannot be recovered: keep it where you keep such \
             things,\nand add a second way to open the vault: tenantry slot add shares --threshold 2 \
             --count 3\nNext: tenantry tenant import PATH"
        )
    });
    Ok(())
}
