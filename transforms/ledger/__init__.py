"""The records of a run, and how its output becomes visible: plan, receipts, verdict, manifest.

These are the files of a run in the order in which they are written, with the process that writes them and the effect
of a crash right after. Each file is written whole, and created only if it does not exist or in place of known content;
`durable` implements that on disks and in object stores. After a crash the same command continues from these records.

1. `_staging/current.json`, by the launch: the run that the output folder is working on.
   The next launch of the same job takes the run up, and writes its plan.
2. `_staging/RUN/plan/*.jsonl`, by the launch: the splits, 500 per file.
   Without `plan.json` they count for nothing.
3. `_staging/RUN/plan.json`, by the launch: everything that is frozen, such as the versions of the inputs and the model.
   The run exists, and only the same job continues it.
4. `_staging/RUN/parts/*`, by the workers (`attempt`): predictions and dead letters of one attempt at one split.
   Without a receipt they are leftovers, which publication or `beam-score clean` removes.
5. `_staging/RUN/receipts/SPLIT.json`, by the workers (`attempt`, `receipts`): counts, parts and their checksums. The
   first valid receipt of a split counts. The split is finished, and is not read again.
6. `_staging/RUN/commit-N.json`, by the commit (`verdict`), when every split of the plan has a receipt: publish, or over
   budget. A verdict to publish is final: the next launch carries it out. A higher budget leads to another verdict.
7. `predictions/RUN-*` and `rejected/RUN-*`, by `publication`: the parts under their final names.
   The next launch moves the others; readers that use the manifest do not see any of them yet.
8. `_staging/current.json` again, by `publication`: the run is being published, and can no longer be discarded.
9. `manifest.json`, by `publication`: success. If over budget, `failed.json` and no predictions.
   Only leftovers remain, which the next command removes.

`folder` has the paths of these files, `names` the form of their names, `shapes` their fields; `ended` reads the records
of finished runs.
"""
