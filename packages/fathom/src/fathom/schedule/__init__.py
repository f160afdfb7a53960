"""Pipeline schedules as tables: who computes what, and when (report section 3.2.1). No torch."""

from fathom.schedule.build import SCHEDULES as SCHEDULES
from fathom.schedule.build import build as build
from fathom.schedule.draw import draw as draw
from fathom.schedule.op import Item as Item
from fathom.schedule.op import Op as Op
from fathom.schedule.op import Schedule as Schedule
from fathom.schedule.place import Timeline as Timeline
from fathom.schedule.place import Times as Times
from fathom.schedule.place import place as place
