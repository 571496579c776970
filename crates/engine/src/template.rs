//! The chat template of a model file, written in Jinja and interpreted as in transformers and
//! llama.cpp.

use std::sync::Arc;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, Error as Jinja, ErrorKind, Value, context};
use models::{Error, Message, Role, Roles, Think};

/// The template for files without one.
const CHATML: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
    {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

const NAME: &str = "chat";
/// Maximum number of template instructions to execute per rendering. A long conversation takes a
/// few thousand; a template that exceeds this limit might never finish.
const FUEL: u64 = 10_000_000;
const THINK_OPEN: &str = "<think>";

/// The restrictions that a template may place on roles, from none to all. A conversation is
/// rendered with each of these values in turn until the template accepts it. The templates of
/// Gemma, Mistral and others refuse a system message, or two messages with the same role in a row.
const REFUSED: [Roles; 3] = [
    Roles { alternate: false, no_system: false },
    Roles { alternate: true, no_system: false },
    Roles { alternate: true, no_system: true },
];

/// A conversation rendered as the text that the model reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Prompt {
    /// The text, which the model continues.
    pub(crate) text: String,
    /// The length, in bytes, of the part that does not depend on the task: everything before the
    /// text of the first user message. 0 if the conversation does not start with a system message.
    pub(crate) stable: usize,
    /// Whether the text ends inside the model's reasoning.
    pub(crate) thinking: bool,
}

/// A compiled chat template.
pub(crate) struct Template {
    environment: Environment<'static>,
    think: Think,
    bos: String,
    eos: String,
}

impl Template {
    /// Compiles the template of a file, or ChatML if the file has none.
    ///
    /// # Errors
    /// [`Error::Refused`] if the template is not valid Jinja.
    pub(crate) fn new(source: Option<&str>, bos: String, eos: String, think: Think) -> Result<Self, Error> {
        let invalid =
            |why: Jinja| Error::Refused(format!("the model file's chat template is not valid: {why:#}"));
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(invalid)?);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |why: String| -> Result<Value, Jinja> {
            Err(Jinja::new(ErrorKind::InvalidOperation, why))
        });
        environment.add_function("strftime_now", |format: String| -> Result<String, Jinja> {
            jiff::fmt::strtime::format(&format, &jiff::Zoned::now())
                .map_err(|why| Jinja::new(ErrorKind::InvalidOperation, why.to_string()))
        });
        environment.set_fuel(Some(FUEL));
        environment.add_template_owned(NAME, source.unwrap_or(CHATML).to_owned()).map_err(invalid)?;
        Ok(Self { environment, think, bos, eos })
    }

    /// Returns whether the model reasons before it answers. It does if its template mentions
    /// `<think>`, unless the user turned thinking off and the template has a switch for it.
    pub(crate) fn thinks(&self) -> bool {
        let Ok(template) = self.environment.get_template(NAME) else { return false };
        let source = template.source();
        let opens = source.contains(THINK_OPEN);
        match self.think {
            Think::Off => opens && !source.contains("enable_thinking"),
            _ => opens,
        }
    }

    /// Renders a conversation. If its last message is from the assistant, the prompt ends with that
    /// message.
    ///
    /// # Errors
    /// [`Error::Refused`] if the template refuses every form of the conversation.
    pub(crate) fn prompt(&self, messages: &[Arc<Message>]) -> Result<Prompt, Error> {
        let (told, continued) = match messages.split_last() {
            Some((last, told)) if last.role == Role::Assistant => (told, Some(&last.content)),
            _ => (messages, None),
        };
        let mut refusal = None;
        for roles in REFUSED {
            let mut text = match self.render(told, roles) {
                Ok(text) => text,
                Err(why) => {
                    refusal.get_or_insert(why);
                    continue;
                }
            };
            let thinking = continued.is_none() && text.trim_end().ends_with(THINK_OPEN);
            text.push_str(continued.map_or("", String::as_str));
            let stable = self.stable(told, roles, &text);
            return Ok(Prompt { text, stable, thinking });
        }
        let why = refusal.map_or_else(String::new, |why| format!(": {why:#}"));
        Err(Error::Refused(format!("the model's chat template refuses the conversation{why}")))
    }

    /// Returns the length of the prefix that `text` shares with a conversation about another task.
    fn stable(&self, messages: &[Arc<Message>], roles: Roles, text: &str) -> usize {
        let Some(system) = messages.first().filter(|first| first.role == Role::System) else { return 0 };
        let other = Message::new(Role::User, "\u{1}");
        let Ok(other) = self.render(&[Arc::clone(system), other.into()], roles) else { return 0 };
        let common = other.bytes().zip(text.bytes()).take_while(|(a, b)| a == b).count();
        // The first byte that differs may be in the middle of a character.
        (0..=common).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
    }

    fn render(&self, messages: &[Arc<Message>], roles: Roles) -> Result<String, Jinja> {
        let messages = roles.shape(messages);
        let messages: Vec<Value> =
            messages.iter().map(|m| context! { role => Serde(m.role), content => &m.content }).collect();
        let think = match self.think {
            Think::Auto => Value::UNDEFINED,
            think => Value::from(think != Think::Off),
        };
        self.environment.get_template(NAME)?.render(context! {
            messages,
            add_generation_prompt => true,
            bos_token => &self.bos,
            eos_token => &self.eos,
            enable_thinking => think,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(role: Role, content: &str) -> Arc<Message> {
        Message::new(role, content).into()
    }

    fn template(source: Option<&str>, think: Think) -> Template {
        Template::new(source, String::from("<s>"), String::from("</s>"), think).unwrap()
    }

    #[test]
    fn a_file_without_a_template_gets_chatml() {
        let prompt = template(None, Think::Auto)
            .prompt(&[message(Role::System, "S"), message(Role::User, "hé")])
            .unwrap();
        assert_eq!(
            prompt.text,
            "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nhé<|im_end|>\n<|im_start|>assistant\n"
        );
        assert_eq!(&prompt.text[..prompt.stable], "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\n");
        assert!(!prompt.thinking);
    }

    #[test]
    fn an_answer_is_continued_from_its_last_byte() {
        let prompt = template(None, Think::Auto)
            .prompt(&[message(Role::User, "a"), message(Role::Assistant, "half a li")])
            .unwrap();
        assert!(prompt.text.ends_with("<|im_start|>assistant\nhalf a li"));
        assert_eq!(prompt.stable, 0, "nothing comes before the task");
    }

    #[test]
    fn a_template_that_refuses_roles_gets_a_conversation_it_accepts() {
        let picky = "{% for m in messages %}\
            {% if m.role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}\
            {% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}\
            [{{ m.content }}]{% endfor %}";
        let talk = [
            message(Role::System, "S"),
            message(Role::User, "a"),
            message(Role::User, "b"),
            message(Role::Assistant, "c"),
            message(Role::User, "d"),
        ];
        assert_eq!(template(Some(picky), Think::Auto).prompt(&talk).unwrap().text, "[S\n\na\n\nb][c][d]");
        let never = "{{ raise_exception('no') }}";
        let error = template(Some(never), Think::Auto).prompt(&talk).unwrap_err().to_string();
        assert!(error.contains("refuses the conversation") && error.contains("no"), "{error}");
        let endless = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}";
        for broken in [endless, "{{ strftime_now('%') }}", "{{ strftime_now('%!') }}"] {
            assert!(template(Some(broken), Think::Auto).prompt(&talk).is_err(), "{broken}");
        }
        assert!(Template::new(Some("{% if %}"), String::new(), String::new(), Think::Auto).is_err());
    }

    #[test]
    fn python_methods_and_the_thinking_switch_work_as_in_transformers() {
        let source = "{%- for m in messages -%}{{ m.content.strip().split('x')[-1] }}{%- endfor -%}\
            {%- if enable_thinking is defined and enable_thinking is false %}<think></think>{% else %}<think>\n{% endif %}";
        let talk = [message(Role::User, " axb ")];
        for (think, text, thinking) in
            [(Think::Auto, "b<think>\n", true), (Think::Off, "b<think></think>", false)]
        {
            let template = template(Some(source), think);
            let prompt = template.prompt(&talk).unwrap();
            assert_eq!(
                (prompt.text.as_str(), prompt.thinking, template.thinks()),
                (text, thinking, thinking)
            );
        }
    }
}
