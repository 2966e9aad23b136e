"""Self-supervision without negatives: what keeps all embeddings from becoming one?"""

from kdutils.selfsup.without_negatives.barlow_twins import BarlowTwins, barlow_twins_loss, cross_correlation
from kdutils.selfsup.without_negatives.byol import BYOL, byol_loss, byol_momentum
from kdutils.selfsup.without_negatives.lejepa import LeJEPA, epps_pulley, random_directions, sigreg
from kdutils.selfsup.without_negatives.vicreg import VICReg, vicreg_terms

__all__ = [
    "BYOL",
    "BarlowTwins",
    "LeJEPA",
    "VICReg",
    "barlow_twins_loss",
    "byol_loss",
    "byol_momentum",
    "cross_correlation",
    "epps_pulley",
    "random_directions",
    "sigreg",
    "vicreg_terms",
]
