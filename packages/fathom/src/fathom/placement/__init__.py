"""Which devices hold which experts, and which hold one twice (report section 3.4). NumPy, no torch."""

from fathom.placement.eplb import eplb as eplb
from fathom.placement.layout import Layout as Layout
from fathom.placement.layout import Placement as Placement
from fathom.placement.place import in_order as in_order
from fathom.placement.place import place as place
