"""Names of what a teacher of other tokens is compared by, and how long each trains."""

OWN_TOKENS = "Bridge, own tokens"
RAW_IDS = "Bridge, raw ids"
OWN_KL = "reverse KL, own tokens"
OWN_BOTH = "10 Bridge + reverse KL, own tokens"
SUPERVISED = "supervised on the teacher's text"
SUPERVISED_ON_SOLUTIONS = "supervised on solutions"
# Steps of a run for one of the others. Across tokenizers they take 1.4 times the time, without the
# teacher's writing; of solutions it was not looked at.
MORE_STEPS = {SUPERVISED: 4, SUPERVISED_ON_SOLUTIONS: 4}
