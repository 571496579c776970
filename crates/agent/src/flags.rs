//! The flags for settings, generated from the definitions in `settings`.

use clap::builder::PossibleValuesParser;
use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::settings::{DEFINITIONS, Definition, Flag, Kind};

/// The values of the flags that override settings. Only settings whose group is in the bit mask
/// `GROUPS` have flags here.
#[derive(Debug, Clone, Default)]
pub(crate) struct Flags<const GROUPS: u8> {
    /// The keys of the settings, and the values as the user typed them.
    pub(crate) given: Vec<(&'static str, String)>,
}

/// Flags of commands that start or prepare a run.
pub(crate) type RunFlags = Flags<0b101_1111>;
/// Flags of `agent ask`, which neither edits files nor runs programs.
pub(crate) type AskFlags = Flags<0b1011>;
/// Flags of commands that only talk to the model server.
pub(crate) type ServerFlags = Flags<0b1>;
/// Flags of `agent sandbox`.
pub(crate) type SandboxFlags = Flags<0b1_0000>;
/// Flags of commands that run a tool.
pub(crate) type ToolFlags = Flags<0b1_0100>;

impl<const GROUPS: u8> clap::Args for Flags<GROUPS> {
    fn augment_args(command: Command) -> Command {
        let defined = DEFINITIONS.iter().filter(|d| GROUPS & d.group as u8 != 0);
        command.args(defined.filter_map(arg))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<const GROUPS: u8> clap::FromArgMatches for Flags<GROUPS> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut given = Vec::new();
        for d in DEFINITIONS.iter().filter(|d| GROUPS & d.group as u8 != 0) {
            match d.flag {
                Flag::None => {}
                Flag::Sets(_, value) => {
                    given.extend(matches.get_flag(d.key).then(|| (d.key, value.to_owned())));
                }
                Flag::Each(_, value) => {
                    if let Some(texts) = matches.get_many::<String>(d.key) {
                        let separator = d.separator();
                        let invalid = |message| clap::Error::raw(ErrorKind::ValueValidation, message);
                        let flag = d.flag_name().unwrap_or_default();
                        if texts.clone().any(|text| text.trim().is_empty()) {
                            return Err(invalid(format!(
                                "the value of {flag} is empty; write {flag} \"{value}\"\n"
                            )));
                        }
                        // A line break would split one value into two. The message does not repeat
                        // the value, which may be a secret.
                        if separator == "\n" && texts.clone().any(|text| text.contains(['\r', '\n'])) {
                            return Err(invalid(format!("the value of {flag} contains a line break\n")));
                        }
                        given.push((d.key, texts.map(String::as_str).collect::<Vec<_>>().join(separator)));
                    }
                }
                Flag::Value(_) | Flag::Optional(..) => {
                    given.extend(matches.get_one::<String>(d.key).map(|text| (d.key, text.clone())));
                }
            }
        }
        Ok(Self { given })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Returns the flag for a setting, if it has one.
fn arg(of: &'static Definition) -> Option<Arg> {
    let name = of.flag_name()?.trim_start_matches('-').to_owned();
    let arg = Arg::new(of.key).long(name).help(of.help).help_heading(of.group.heading());
    let arg = match of.flag {
        Flag::Sets(..) => return Some(arg.action(ArgAction::SetTrue)),
        Flag::Optional(value, missing) => {
            arg.value_name(value).num_args(0..=1).require_equals(true).default_missing_value(missing)
        }
        Flag::Value(value) => arg.value_name(value),
        Flag::Each(_, value) => arg.value_name(value).action(ArgAction::Append),
        Flag::None => arg,
    };
    let arg = match of.default {
        Some(default) => arg.help(format!("{} [default: {default}]", of.help)),
        None => arg,
    };
    let arg = if of.key == "model" { arg.short('m') } else { arg };
    Some(match of.kind {
        Kind::Choice(words) => arg.value_parser(PossibleValuesParser::new(words)),
        // Not parsed here, because clap would repeat an invalid value in its message.
        Kind::Headers | Kind::Variables => arg,
        _ => arg.value_parser(move |text: &str| of.parse(text).map(|_| text.to_owned())),
    })
}
