"""Adversarial adaptation: features from which a classifier of the domains learns nothing."""

from kdutils.adapt.adversarial.adda import ADDA
from kdutils.adapt.adversarial.cdan import CDAN, entropy_weights, multilinear_map
from kdutils.adapt.adversarial.dann import DANN
from kdutils.adapt.adversarial.discriminator import domain_accuracy, domain_discriminator, domain_loss
from kdutils.adapt.adversarial.gradient_reversal import gradient_reversal, reversal_ramp
from kdutils.adapt.adversarial.mcd import MCD, classifier_discrepancy

__all__ = [
    "ADDA",
    "CDAN",
    "DANN",
    "MCD",
    "classifier_discrepancy",
    "domain_accuracy",
    "domain_discriminator",
    "domain_loss",
    "entropy_weights",
    "gradient_reversal",
    "multilinear_map",
    "reversal_ramp",
]
