"""What the uncertainty paper (Arega et al., UNSURE 2021) published, to stand beside ours.

EMIDEC's test set, 50 cases; Dice (DSC) in %, Hausdorff distance (HD) in mm, volume error (VD) in cm³, its share of
the myocardium (PD) in percentage points, Brier score (BS) in units of 0.01.
"""

N_CASES = 50
COLUMNS_1 = (  # of Table 1: structure and measure
    ("myocardium", "dc"),
    ("myocardium", "hd_mm"),
    ("myocardium", "brier"),
    ("infarction", "dc"),
    ("infarction", "volume_error_ml"),
    ("infarction", "brier"),
)
# arm -> mean (standard deviation) as printed, whose digits differ
TABLE_1 = {
    "baseline": ("88.0 (2.63)", "12.1 (7.79)", "4.03 (2.45)", "65.0 (29.7)", "3.04 (5.0)", "1.19 (1.81)"),
    "proposed": ("88.2 (2.55)", "11.8 (7.26)", "3.86 (2.8)", "67.6 (28.8)", "2.99 (4.55)", "1.18 (1.83)"),
}

COLUMNS_2 = (  # of Table 2
    ("myocardium", "dc"),
    ("myocardium", "volume_error_ml"),
    ("myocardium", "hd_mm"),
    ("infarction", "dc"),
    ("infarction", "volume_error_ml"),
    ("infarction", "volume_error_percent"),
    ("no_reflow", "dc"),
    ("no_reflow", "volume_error_ml"),
    ("no_reflow", "volume_error_percent"),
)
# authors -> mean as printed
TABLE_2 = {
    "Zhang": ("87.86", "9.26", "13.01", "71.24", "3.12", "2.38", "78.51", "0.635", "0.38"),
    "Ma": ("86.28", "10.2", "14.31", "62.24", "4.87", "3.50", "77.76", "0.830", "0.49"),
    "Feng et al.": ("83.56", "15.2", "33.77", "54.68", "3.97", "2.89", "72.22", "0.883", "0.53"),
    "Proposed": ("88.22", "9.23", "11.78", "67.64", "2.99", "2.29", "81.00", "0.601", "0.37"),
}

CITATIONS = (
    "Arega TW, Bricq S, Meriaudeau F. Leveraging Uncertainty Estimates to Improve Segmentation Performance in "
    "Cardiac MR. UNSURE 2021, LNCS 12959, pp. 24–33. doi:10.1007/978-3-030-87735-4_3 (the uncertainty paper)",
    "Lalande A, Chen Z, Decourselle T, et al. Emidec: A Database Usable for the Automatic Evaluation of Myocardial "
    "Infarction from Delayed-Enhancement Cardiac MRI. Data 5(4), 2020, 89. doi:10.3390/data5040089 (the EMIDEC "
    "data and challenge)",
    "Roy AG, Conjeti S, Navab N, Wachinger C. Inherent Brain Segmentation Quality Control from Fully ConvNet Monte "
    "Carlo Sampling. MICCAI 2018, LNCS 11070, pp. 664–672. doi:10.1007/978-3-030-00928-1_75 (DiceWithinSamples)",
)
