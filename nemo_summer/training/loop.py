"""The main loop."""

from __future__ import annotations

from nemo_summer.training.run import Run
from nemo_summer.training.state import TrainState
from nemo_summer.training.step import take_step


def train(run: Run, state: TrainState) -> TrainState:
    """Takes `state` from where it stands to the last step, or to where a signal or bad gradients end it."""
    while state.step < run.cfg.steps:
        packs = run.next_packs()
        report = take_step(run, packs, state)
        state.advance(report)
        run.log.write(state, report)
        for task in run.tasks:
            if task.due(state.step) or (report.stop_asked and task.before_stopping):
                task.do(run, state)
        if report.stop_asked:
            break
        if state.skipped_in_a_row >= run.cfg.skipped_at_most:
            raise ArithmeticError(
                f"the gradients of {state.skipped_in_a_row} steps in a row up to step {state.step} were not finite; "
                f"the last one trained on {', '.join(report.clip_ids)}. Lower optim.lr or look at these clips."
            )
    return state
