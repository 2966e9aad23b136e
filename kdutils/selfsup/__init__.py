"""Self-supervision: networks that learn from pictures without labels, by embedding two views of each."""

from kdutils.selfsup._views import Embedder as Embedder
from kdutils.selfsup._views import mlp_projector as mlp_projector
from kdutils.selfsup.contrastive import (
    AlignmentUniformity,
    MoCo,
    SimCLR,
    alignment_loss,
    info_nce,
    nt_xent,
    uniformity_loss,
)
from kdutils.selfsup.without_negatives import (
    BYOL,
    BarlowTwins,
    LeJEPA,
    VICReg,
    barlow_twins_loss,
    byol_loss,
    byol_momentum,
    cross_correlation,
    epps_pulley,
    random_directions,
    sigreg,
    vicreg_terms,
)

__all__ = [
    "BYOL",
    "AlignmentUniformity",
    "BarlowTwins",
    "LeJEPA",
    "MoCo",
    "SimCLR",
    "VICReg",
    "alignment_loss",
    "barlow_twins_loss",
    "byol_loss",
    "byol_momentum",
    "cross_correlation",
    "epps_pulley",
    "info_nce",
    "nt_xent",
    "random_directions",
    "sigreg",
    "uniformity_loss",
    "vicreg_terms",
]
