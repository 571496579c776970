//! The driver's side of switching models: creates the plan for a model, and opens the model that
//! makes the final try (`--escalate`) or replaces an unavailable model (`--fallback`).

use std::sync::Arc;

use journal::{Check, Ending, Event, ModelInfo, ModelRole, Record};
use models::Absent;

use crate::driver::{Driver, Stop, recorded, refused, stopped};
use crate::machine::{Input, Machine, Plan};
use crate::opening;
use crate::settings::{Approach, Settings};
use crate::{Job, OpenModel, OpenedModel};

impl Driver<'_> {
    /// Describes the current model for the journal.
    pub(crate) fn model_info(&self, approach: Approach, why: String, role: Option<ModelRole>) -> ModelInfo {
        let identity = &self.identity;
        let price = identity.price.as_ref();
        ModelInfo {
            server: identity.server.clone(),
            server_version: identity.server_version.clone(),
            model: identity.model.clone(),
            window: identity.window,
            thinking: identity.thinking,
            constrained: self.call_schema.is_some() && identity.can_constrain,
            approach: approach.name().into(),
            why,
            family: identity.family.clone(),
            parameters_b: identity.parameters_b,
            local: Some(identity.local),
            price: price.map(|price| price.rates),
            peak_factor: price.and_then(models::Price::peak_factor),
            prices_of: price.and_then(|price| price.as_of),
            edit_format: identity.edit_format.clone(),
            role,
        }
    }

    /// Journals the current model of a resumed run if it differs from the last model in the
    /// journal. From then on, usage is added to the current model's totals, at its prices. The plan
    /// and the conversation do not change.
    pub(crate) fn record_other_model(&mut self, job: &Job, plan: &Plan, past: &[Record]) -> Result<(), Stop> {
        let info = self.model_info(plan.approach(), job.why_model.clone(), job.role);
        let last = past.iter().rev().find_map(|record| match &record.event {
            Event::Model(model) | Event::ModelChanged { model, .. } => Some(model),
            _ => None,
        });
        let same = |last: &ModelInfo| {
            (&last.server, &last.model) == (&info.server, &info.model)
                && (last.price, last.peak_factor, last.prices_of)
                    == (info.price, info.peak_factor, info.prices_of)
        };
        // A model whose server is unavailable (`Absent`) has no name. The next request to it makes
        // the run switch to the fallback.
        if info.model.is_empty() || last.is_some_and(same) {
            return Ok(());
        }
        self.accountant.start_model(&info);
        self.journal.append(Event::Model(info))?;
        Ok(())
    }

    /// Creates the plan for a new conversation with the current model. `map` is the code map for
    /// the first message.
    pub(crate) fn new_plan(&mut self, baseline: Option<&Check>, map: String) -> Plan {
        let task = self.task.clone();
        let (opening, focus) = match self.shown.pop_front() {
            Some(Plan { opening, focus, .. }) => (opening::from_recorded(opening, &self.tools, task), focus),
            None => opening::compose(
                &*self.repository,
                &self.tools,
                task,
                baseline,
                self.approach(),
                self.identity.window,
                map,
            ),
        };
        // A small model that is shown the right files answers best without tools.
        let small = self.settings.approach.resolve(&self.identity) == Approach::WholeFile;
        let answers = self.settings.question && !self.settings.has_result;
        let plain = answers && small && !opening.files.is_empty();
        Plan {
            settings: self.settings_of_model(),
            opening,
            window: self.identity.window,
            has_verifier: self.verifier.is_some(),
            repeats_thinking: self.identity.repeats_thinking,
            branches: self.identity.branches,
            plain,
            focus,
        }
    }

    /// Returns the approach for the current model. Results and answers need [`Approach::Tools`],
    /// because the model returns them in calls.
    pub(crate) fn approach(&self) -> Approach {
        match self.settings.question || self.settings.has_result {
            true => Approach::Tools,
            false => self.settings.approach.resolve(&self.identity),
        }
    }

    /// Returns the settings, adapted to the current model.
    fn settings_of_model(&self) -> Settings {
        let mut settings = self.settings.clone();
        if self.identity.thinking {
            // Reasoning counts toward an answer's token limit, and if the reasoning is cut off, the
            // answer is lost (docs/model-apis.md#deepseek-requests).
            let least = if self.identity.local { 8 << 10 } else { 32 << 10 };
            settings.max_answer_tokens = settings.max_answer_tokens.max(least);
        }
        settings.temperature = settings.temperature.or(Some(self.identity.temperature));
        settings
    }

    /// Starts the final try with the model specified by `--escalate`, or with the fallback if that
    /// model is unavailable.
    pub(crate) async fn escalate(&mut self, machine: &Machine) -> Result<Input, Stop> {
        self.renew_limits();
        let Some(opener) = self.escalation.take() else {
            return Err(refused("the session escalates to another model; specify it with --escalate"));
        };
        let failed = match self.open_model(&*opener).await? {
            Ok(opened) => {
                let why = "no try passed the verification".into();
                return self.change_model(machine, opened, ModelRole::Escalate, why, true);
            }
            Err((ending, why)) => (ending, format!("cannot escalate: {why}")),
        };
        let (ending, why) = failed;
        let opened = self.open_fallback(ending, &why).await?;
        self.change_model(machine, opened, ModelRole::Fallback, why, true)
    }

    /// Continues the conversation with the fallback. `why` explains why the current model did not
    /// answer.
    pub(crate) async fn fall_back(
        &mut self,
        machine: &Machine,
        ending: Ending,
        why: String,
    ) -> Result<Input, Stop> {
        let opened = self.open_fallback(ending, &why).await?;
        let input = self.change_model(machine, opened, ModelRole::Fallback, why, false)?;
        self.turn -= 1; // this turn's request is sent again
        Ok(input)
    }

    /// Opens the fallback. If there is none or it is unavailable too, the run ends with `ending`
    /// and `why`.
    async fn open_fallback(&mut self, ending: Ending, why: &str) -> Result<OpenedModel, Stop> {
        let Some(opener) = self.fallback.take() else { return Err(Stop::Ended(ending, why.to_owned())) };
        self.open_model(&*opener).await?.map_err(|(_, also)| {
            Stop::Ended(ending, format!("{why}; the fallback model is unavailable too: {also}"))
        })
    }

    /// Closes the current model and opens another one.
    async fn open_model(
        &mut self,
        opener: &dyn OpenModel,
    ) -> Result<Result<OpenedModel, (Ending, String)>, Stop> {
        self.model = Box::new(Absent("the model was closed".into()));
        let opened = tokio::select! {
            opened = opener.open() => opened,
            stop = stopped(self.interrupt.clone(), self.deadline) => return Err(stop),
        };
        Ok(opened.and_then(|opened| match self.check_images(&opened.model.identity()) {
            Ok(()) => Ok(opened),
            Err(why) => Err((Ending::Refused, why)),
        }))
    }

    /// Switches to an opened model, and journals the change.
    fn change_model(
        &mut self,
        machine: &Machine,
        opened: OpenedModel,
        role: ModelRole,
        why: String,
        new_try: bool,
    ) -> Result<Input, Stop> {
        self.model = opened.model;
        self.identity = self.model.identity();
        self.first_call_only = self.settings.cut.after_first_call(&self.identity);
        let constrained = self.settings.constrain.resolve(&self.identity);
        self.call_schema = constrained.then(|| Arc::new(self.tools.call_schema()));
        let plan = if new_try {
            self.new_plan(machine.baseline.as_ref(), machine.plan().opening.map.clone())
        } else {
            Plan {
                settings: self.settings_of_model(),
                window: self.identity.window,
                repeats_thinking: self.identity.repeats_thinking,
                branches: self.identity.branches,
                ..machine.plan().clone()
            }
        };
        self.window = self.identity.window;
        let model = self.model_info(plan.approach(), opened.why, Some(role));
        self.accountant.start_model(&model);
        let (turn, recorded) = (self.turn, recorded(&plan)?);
        self.journal.append(Event::ModelChanged { turn, why, new_try, model, plan: recorded })?;
        for message in opened.warnings {
            self.journal.append(Event::Warning { message })?;
        }
        if new_try {
            self.renew_limits();
        }
        Ok(Input::ModelChanged { plan: Box::new(plan), new_try })
    }
}
