"""Classifier that learns from soft labels of an ensemble only, as in MEAL V2 (arXiv 2009.08453).

The MobileOne paper only says "MEAL V2-style". Teachers, loss and the pretrained start are those of
MEAL V2's public code, without its discriminator (docs/distillation.md). Other teachers:
dict(timm=NAME, pretrained=True), dict(config=PATH, checkpoint=PATH), dict(model=dict(...), checkpoint=PATH).
"""

_base_ = ['./mobileone.py']

model = dict(
    type='mobileone_mm.DistillClassifier',
    teachers=[
        dict(timm='senet154.gluon_in1k', pretrained=True),
        dict(timm='resnet152s.gluon_in1k', pretrained=True),
    ],
    # alpha: weight of the soft labels; the head's loss on hard labels has the rest. Plain distillation
    # needs two options: model.distill_loss.temperature=4.0 model.distill_loss.alpha=0.9.
    distill_loss=dict(temperature=1.0, alpha=1.0),
    # Folder of tools/misc/store_teacher_outputs.py, which is read instead of running the teachers.
    outputs=None,
)
