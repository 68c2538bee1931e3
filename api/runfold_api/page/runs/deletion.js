// Deletion, with a dialog that states the number of runs and asks for confirmation.

import { get, remove, runPath, Problem } from "../shared/api.js";
import { h, fill } from "../shared/elements.js";
import { describeTotal } from "../shared/formats.js";
import { describe } from "../jobs/kinds.js";

const JOB_POLL_MS = 500;

/** Ask, delete the selected runs (or all that match the filters), show the progress, call `done()`. */
export function askToDelete({ selected, filters, total, done }) {
  const what = selected.length
    ? `${selected.length} selected ${selected.length === 1 ? "run" : "runs"}`
    : describeTotal(total);
  const message = h("p", { role: "status" });
  const leave = h("button", { autofocus: true }, "Cancel");
  const confirm = h("button", { type: "button", class: "danger", onclick: act }, "Delete permanently");
  const dialog = h("dialog", { class: "sheet", "aria-labelledby": "delete-title" },
    h("h2", { id: "delete-title" }, `Delete ${what}?`),
    h("p", null, "This also deletes their nodes, payloads and events, and removes them from the statistics. It cannot be undone."),
    !selected.length && h("ul", null, Object.entries(filters).map(([name, value]) => h("li", null, h("code", null, `${name} = ${value}`)))),
    message,
    h("form", { method: "dialog" }, leave, confirm));
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();

  async function act() {
    confirm.disabled = true;
    try {
      if (selected.length) await deleteEach();
      else await deleteAll();
      if (!dialog.open) return;
      dialog.close();
      done();
    } catch (error) {
      confirm.disabled = false;
      fill(leave, "Cancel");
      fill(message, h("span", { class: "bad" }, error.message));
    }
  }

  async function deleteEach() {
    for (const [index, id] of selected.entries()) {
      try {
        await remove(runPath(id));
      } catch (error) {
        if (!(error instanceof Problem && error.status === 404)) throw error; // already deleted
      }
      fill(message, `${index + 1} of ${selected.length} deleted …`);
    }
  }

  async function deleteAll() {
    let job = await remove("runs", Object.keys(filters).length ? filters : { all: true });
    if (!job?.id) return; // few runs: already deleted
    fill(leave, "Close");
    while (job.status !== "completed" && dialog.open) {
      if (job.status === "failed" || job.status === "cancelled") throw new Problem(0, job.error ?? `The job was ${job.status}.`);
      fill(message, describe(job).progress || "The deletion job is waiting for a worker", " … You can close this page; the job is listed under ",
        h("a", { href: "/jobs", onclick: () => dialog.close() }, "Jobs"), ".");
      await new Promise((resolve) => { setTimeout(resolve, JOB_POLL_MS); });
      job = await get(`jobs/${job.id}`);
    }
  }
}
