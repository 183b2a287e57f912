"""Small networks, drawn and inspected once a session."""

from __future__ import annotations

import pytest

from tests.engram.nn.pretrained.drawn import Drawn, drawn

EFFICIENTNET = ("timm/test_efficientnet", {"num_classes": 5}, 64)
SHUFFLENET = ("torchvision/shufflenet_v2_x0_5", {"num_classes": 5}, 64)
VIT = ("timm/test_vit", {"num_classes": 5, "img_size": 64}, 64)


@pytest.fixture(scope="session")
def efficientnet() -> Drawn:
    """A network of timm that puts out maps; batch norms, squeeze and excitation."""
    return drawn(EFFICIENTNET[0], EFFICIENTNET[1], size=EFFICIENTNET[2])


@pytest.fixture(scope="session")
def vit() -> Drawn:
    """A network of timm that puts out tokens."""
    return drawn(VIT[0], VIT[1], size=VIT[2])


@pytest.fixture(scope="session")
def shufflenet() -> Drawn:
    """A network of torchvision."""
    return drawn(SHUFFLENET[0], SHUFFLENET[1], size=SHUFFLENET[2])


@pytest.fixture(scope="session", params=["efficientnet", "vit", "shufflenet"])
def network_file(request: pytest.FixtureRequest) -> Drawn:
    """Each of the three."""
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Drawn)
    return found
