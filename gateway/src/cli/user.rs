//! `sentineld user` and `sentineld import`: they work on the files, so they also help when nobody
//! can sign in; a running gateway takes the change over within a second.

use super::arguments::{Place, UserAction};
use super::console::{read_password, say};
use super::{open_config, open_data};
use crate::accounts::{Account, AccountChange, Database, Hasher, UserId, UserName, check_password};
use crate::clock;
use crate::store::Store;
use anyhow::{Context, bail};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

fn open(place: &Place) -> anyhow::Result<Database> {
    let data = open_data(place)?;
    let config = open_config(place, &data)?;
    let database = Database::open(data.resolve(&config.current().users_db));
    if let Some(fault) = database.fault() {
        bail!("{fault}");
    }
    Ok(database)
}

fn find(database: &Database, name: &str) -> anyhow::Result<Arc<Account>> {
    database
        .current()
        .find(name)
        .cloned()
        .with_context(|| format!("there is no account \"{name}\""))
}

fn hash(password: String) -> anyhow::Result<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    Ok(runtime.block_on(Hasher::start()?.hash(password))?)
}

/// Writes the deletion down before it deletes, so that a running gateway, or the next one, knows that
/// jobs and history of this account are to go.
fn remove(place: &Place, database: &Database, id: &UserId) -> anyhow::Result<()> {
    let store = Store::open(&open_data(place)?.database())?;
    store.note_deletion_blocking(id.clone(), clock::now())?;
    if let Err(error) = database.delete(id) {
        store.take_deletions_back_blocking(vec![id.clone()])?;
        return Err(error.into());
    }
    Ok(())
}

/// Carries one action out.
pub(super) fn act(place: &Place, action: UserAction) -> anyhow::Result<ExitCode> {
    let database = open(place)?;
    let change = |name: &str, change: AccountChange, done: &str| -> anyhow::Result<()> {
        database.change(&find(&database, name)?.id, change)?;
        say(&format!("{name} {done}"));
        Ok(())
    };
    match action {
        UserAction::List => {
            for account in database.current().iter() {
                let role = if account.admin { "admin" } else { "user" };
                let state = if account.disabled {
                    "disabled"
                } else {
                    "enabled"
                };
                say(&format!(
                    "{}\t{role}\t{state}\t{}",
                    account.username, account.id
                ));
            }
        }
        UserAction::Add { name, admin } => {
            let name = UserName::parse(&name)?;
            let password = read_password()?;
            check_password(&password)?;
            database.add(Account::new(&name, hash(password)?, admin, clock::now()))?;
            say(&format!("{name} has been added"));
        }
        UserAction::Passwd { name } => {
            find(&database, &name)?;
            let password = read_password()?;
            check_password(&password)?;
            let password_hash = Some(hash(password)?);
            change(
                &name,
                AccountChange {
                    password_hash,
                    ..AccountChange::default()
                },
                "has a new password",
            )?;
        }
        UserAction::Remove { name } => {
            remove(place, &database, &find(&database, &name)?.id)?;
            say(&format!("{name} has been deleted; the files stay"));
        }
        UserAction::Promote { name } => {
            change(
                &name,
                AccountChange {
                    admin: Some(true),
                    ..AccountChange::default()
                },
                "is an admin now",
            )?;
        }
        UserAction::Demote { name } => {
            change(
                &name,
                AccountChange {
                    admin: Some(false),
                    ..AccountChange::default()
                },
                "is no admin any more",
            )?;
        }
        UserAction::Disable { name } => {
            change(
                &name,
                AccountChange {
                    disabled: Some(true),
                    ..AccountChange::default()
                },
                "is shut out now",
            )?;
        }
        UserAction::Enable { name } => {
            change(
                &name,
                AccountChange {
                    disabled: Some(false),
                    ..AccountChange::default()
                },
                "may come in again",
            )?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Takes accounts of the original over.
pub(super) fn import(place: &Place, file: &Path) -> anyhow::Result<ExitCode> {
    let database = open(place)?;
    let text =
        std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let (added, left_out) = database.import(&text)?;
    say(&format!(
        "{added} accounts have been taken over; they keep their passwords"
    ));
    for name in left_out {
        say(&format!("left out: {name} (the name or its key is taken)"));
    }
    Ok(ExitCode::SUCCESS)
}
