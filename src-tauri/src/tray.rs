//! The tray on the screen: made once, then only changed where it differs.
//!
//! On Linux the menu of a tray cannot be replaced, so its lines are changed in place. All of this
//! runs on the main thread.

use crate::icon::{Sign, picture};
use crate::menu::{Action, Entry};
use crate::surroundings::Panel;
use std::path::Path;
use tauri::image::Image;
use tauri::menu::{CheckMenuItem, IsMenuItem, Menu, MenuItem, PredefinedMenuItem, Submenu};
use tauri::tray::{TrayIcon, TrayIconBuilder};
use tauri::{AppHandle, Wry};

const ID: &str = "comfyui-sentinel";
const TOOLTIP: &str = "ComfyUI Sentinel";

/// What is shown, and with what.
pub(crate) struct Tray {
    app: AppHandle,
    icon: TrayIcon,
    menu: Menu<Wry>,
    lines: Vec<Line>,
    shown: Vec<Entry>,
    picture: (Sign, Panel),
}

/// A line of the menu on the screen.
enum Line {
    Item(MenuItem<Wry>),
    Check(CheckMenuItem<Wry>),
    Separator(PredefinedMenuItem<Wry>),
    Submenu(Submenu<Wry>, Vec<Self>),
}

impl Tray {
    /// Puts the icon into the tray. `directory` takes its picture, which the desktop reads from a
    /// file on Linux.
    pub(crate) fn new(
        app: &AppHandle,
        directory: &Path,
        entries: Vec<Entry>,
        sign: Sign,
        panel: Panel,
    ) -> tauri::Result<Self> {
        let menu = Menu::new(app)?;
        let lines = append(app, &entries, |line| menu.append(line))?;
        let icon = TrayIconBuilder::with_id(ID)
            .tooltip(TOOLTIP)
            .icon(Image::from_bytes(picture(sign, panel))?)
            .temp_dir_path(directory)
            .menu(&menu)
            .show_menu_on_left_click(cfg!(not(windows)))
            .build(app)?;
        Ok(Self {
            app: app.clone(),
            icon,
            menu,
            lines,
            shown: entries,
            picture: (sign, panel),
        })
    }

    /// Shows what has changed.
    pub(crate) fn update(
        &mut self,
        entries: Vec<Entry>,
        sign: Sign,
        panel: Panel,
    ) -> tauri::Result<()> {
        if self.picture != (sign, panel) {
            self.icon
                .set_icon(Some(Image::from_bytes(picture(sign, panel))?))?;
            self.picture = (sign, panel);
        }
        if have_same_shape(&self.shown, &entries) {
            change(&self.app, &mut self.lines, &self.shown, &entries)?;
        } else {
            for line in self.lines.drain(..) {
                self.menu.remove(line.as_item())?;
            }
            self.lines = append(&self.app, &entries, |line| self.menu.append(line))?;
        }
        self.shown = entries;
        Ok(())
    }
}

impl Line {
    fn new(app: &AppHandle, entry: &Entry) -> tauri::Result<Self> {
        Ok(match entry {
            Entry::Line(text) => Self::Item(MenuItem::new(app, text, false, None::<&str>)?),
            Entry::Item {
                action,
                text,
                is_enabled,
            } => Self::Item(MenuItem::with_id(
                app,
                action.name(),
                text,
                *is_enabled,
                None::<&str>,
            )?),
            Entry::Check {
                action,
                text,
                is_checked,
            } => Self::Check(CheckMenuItem::with_id(
                app,
                action.name(),
                text,
                true,
                *is_checked,
                None::<&str>,
            )?),
            Entry::Submenu { text, entries } => {
                let submenu = Submenu::new(app, text, true)?;
                let lines = append(app, entries, |line| submenu.append(line))?;
                Self::Submenu(submenu, lines)
            }
            Entry::Separator => Self::Separator(PredefinedMenuItem::separator(app)?),
        })
    }

    fn as_item(&self) -> &dyn IsMenuItem<Wry> {
        match self {
            Self::Item(item) => item,
            Self::Check(item) => item,
            Self::Separator(item) => item,
            Self::Submenu(item, _) => item,
        }
    }
}

fn append(
    app: &AppHandle,
    entries: &[Entry],
    add: impl Fn(&dyn IsMenuItem<Wry>) -> tauri::Result<()>,
) -> tauri::Result<Vec<Line>> {
    let mut lines = Vec::with_capacity(entries.len());
    for entry in entries {
        let line = Line::new(app, entry)?;
        add(line.as_item())?;
        lines.push(line);
    }
    Ok(lines)
}

/// Whether one menu becomes the other by changing lines, without adding or removing any. What is
/// in a submenu does not count.
fn have_same_shape(shown: &[Entry], wanted: &[Entry]) -> bool {
    let action = |entry: &Entry| -> Option<Action> {
        match entry {
            Entry::Item { action, .. } | Entry::Check { action, .. } => Some(*action),
            Entry::Line(_) | Entry::Submenu { .. } | Entry::Separator => None,
        }
    };
    shown.len() == wanted.len()
        && shown.iter().zip(wanted).all(|(shown, wanted)| {
            std::mem::discriminant(shown) == std::mem::discriminant(wanted)
                && action(shown) == action(wanted)
        })
}

fn change(
    app: &AppHandle,
    lines: &mut [Line],
    shown: &[Entry],
    wanted: &[Entry],
) -> tauri::Result<()> {
    for (line, (shown, wanted)) in lines.iter_mut().zip(shown.iter().zip(wanted)) {
        // A click ticks or unticks a line by itself, so it may not show what was told last.
        let changes_itself = matches!(wanted, Entry::Check { .. });
        if shown == wanted && !changes_itself {
            continue;
        }
        match (line, wanted) {
            (Line::Item(item), Entry::Line(text)) => item.set_text(text)?,
            (
                Line::Item(item),
                Entry::Item {
                    text, is_enabled, ..
                },
            ) => {
                item.set_text(text)?;
                item.set_enabled(*is_enabled)?;
            }
            (
                Line::Check(item),
                Entry::Check {
                    text, is_checked, ..
                },
            ) => {
                item.set_text(text)?;
                item.set_checked(*is_checked)?;
            }
            (Line::Submenu(submenu, lines), Entry::Submenu { text, entries }) => {
                submenu.set_text(text)?;
                for line in lines.drain(..) {
                    submenu.remove(line.as_item())?;
                }
                *lines = append(app, entries, |line| submenu.append(line))?;
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_other_lines_need_a_new_menu() {
        let item = |action, text: &str| Entry::Item {
            action,
            text: text.to_owned(),
            is_enabled: true,
        };
        let submenu = |entries| Entry::Submenu {
            text: String::new(),
            entries,
        };
        let menu = [item(Action::Start, "Start"), submenu(vec![])];
        let changed = [
            item(Action::Start, "Begin"),
            submenu(vec![Entry::Separator]),
        ];
        let other = [item(Action::Stop, "Start"), submenu(vec![])];
        assert!(have_same_shape(&menu, &changed));
        assert!(!have_same_shape(&menu, &other));
        assert!(!have_same_shape(&menu, &menu[..1]));
    }
}
