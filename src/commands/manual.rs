//! `man` and `completions`: what clap knows, for packages and shells.

use std::io;
use std::path::Path;

use super::output::print;
use crate::cli::{self, Completions, Man};
use crate::error::{Error, Result};

const NAME: &str = "session-sidecar";

/// Prints the completions of a shell.
pub(super) fn completions(args: Completions) -> Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut cli::command(), NAME, &mut text);
    print(String::from_utf8_lossy(&text).trim_end())
}

/// Prints the manual page, or writes all of them.
pub(super) fn man(args: &Man) -> Result<()> {
    let Some(dir) = &args.dir else {
        return print(String::from_utf8_lossy(&page(&cli::command())?).trim_end());
    };
    std::fs::create_dir_all(dir)
        .map_err(|error| Error::io(format!("cannot make {}", dir.display()), error))?;
    // The whole command has its global flags in every subcommand only once it is built.
    let mut command = cli::command();
    command.build();
    write(dir, NAME, &command)?;
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
        let name = format!("{NAME}-{}", sub.get_name());
        write(dir, &name, &sub.clone().display_name(name.clone()))?;
    }
    Ok(())
}

fn write(dir: &Path, name: &str, command: &clap::Command) -> Result<()> {
    let file = dir.join(format!("{name}.1"));
    std::fs::write(&file, page(command)?)
        .map_err(|error| Error::io(format!("cannot write {}", file.display()), error))
}

fn page(command: &clap::Command) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    let rendered: io::Result<()> = clap_mangen::Man::new(command.clone()).render(&mut text);
    rendered.map_err(|error| Error::io("cannot make the manual page", error))?;
    Ok(text)
}
