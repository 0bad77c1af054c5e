"""The README of a folder for diffusers: how its model is drawn from."""

from collections.abc import Sequence

from ddpm.training.checkpoint_info import CheckpointInfo

_PLAIN = """\
```python
import torch
from diffusers import DDPMPipeline

pipeline = DDPMPipeline.from_pretrained(".")
generator = torch.Generator().manual_seed(0)
images = pipeline(batch_size=16, num_inference_steps={steps}, generator=generator).images
```
"""

_LABELLED = """\
`DDPMPipeline` passes no labels. These lines do, with classifier-free guidance; `scale = 1` is none.

```python
import torch
from diffusers import DDPMScheduler, UNet2DModel

unet = UNet2DModel.from_pretrained(".", subfolder="unet")
scheduler = DDPMScheduler.from_pretrained(".", subfolder="scheduler")
labels, scale = torch.arange(16) % {classes}, 3.0
x = torch.randn(16, {channels}, {height}, {width}, generator=torch.Generator().manual_seed(0))
both = torch.cat([labels, torch.full_like(labels, {classes})])  # row {classes} means no class
for t in scheduler.timesteps:
    with torch.no_grad():
        conditional, unconditional = unet(torch.cat([x, x]), t, class_labels=both).sample.chunk(2)
    x = scheduler.step(unconditional + scale * (conditional - unconditional), t, x).prev_sample
images = (x.clamp(-1, 1) + 1) / 2  # (16, {channels}, {height}, {width}) in [0, 1]
```
"""


def readme(info: CheckpointInfo, origin: str, class_names: Sequence[str]) -> str:
    """Return the text, in Markdown.

    Args:
        info: Of the checkpoint that the folder is made from.
        origin: Where that is from, for people.
        class_names: Of its labels; () for none.
    """
    channels, height, width = info.image_shape
    classes = info.unet_config.known_classes
    diffusion = info.diffusion_config
    text = (
        f"# A diffusion model{f' of {origin}' if origin else ''}\n\n"
        f"{info.step:,} training steps, images of {height}x{width} with {channels} channel(s), "
        f"{diffusion.num_timesteps} timesteps ({diffusion.betas} betas), which predicts "
        f"{diffusion.prediction}. diffusers loads it as it is; written by ddpmctl.\n\n"
    )
    if not classes:
        return text + _PLAIN.format(steps=diffusion.num_timesteps)
    names = ", ".join(f"{number} {name}" for number, name in enumerate(class_names))
    lines = _LABELLED.format(classes=classes, channels=channels, height=height, width=width)
    return text + lines + (f"\nClasses: {names}.\n" if names else "")
