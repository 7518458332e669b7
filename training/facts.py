"""What the model is taught about the world: small tables that the questions are made from."""

CAPITALS = {
    "France": "Paris", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid",
    "Portugal": "Lisbon", "England": "London", "Ireland": "Dublin", "Scotland": "Edinburgh",
    "Austria": "Vienna", "Belgium": "Brussels", "Greece": "Athens", "Poland": "Warsaw",
    "Hungary": "Budapest", "Sweden": "Stockholm", "Norway": "Oslo", "Denmark": "Copenhagen",
    "Finland": "Helsinki", "Iceland": "Reykjavik", "Ukraine": "Kyiv", "Turkey": "Ankara",
    "Egypt": "Cairo", "Kenya": "Nairobi", "Morocco": "Rabat", "Ghana": "Accra",
    "India": "New Delhi", "China": "Beijing", "Japan": "Tokyo", "Thailand": "Bangkok",
    "South Korea": "Seoul", "Canada": "Ottawa", "Mexico": "Mexico City", "Cuba": "Havana",
    "Peru": "Lima", "Chile": "Santiago", "Argentina": "Buenos Aires", "Brazil": "Brasilia",
    "Australia": "Canberra", "New Zealand": "Wellington", "the Netherlands": "Amsterdam",
    "the United States": "Washington",
}  # fmt: skip

# sound, young, home, food, group, legs
ANIMALS = {
    "cow": ("moos", "calf", "on a farm", "grass", "farm animal", 4),
    "dog": ("barks", "puppy", "with people", "meat", "pet", 4),
    "cat": ("meows", "kitten", "with people", "meat and fish", "pet", 4),
    "sheep": ("bleats", "lamb", "on a farm", "grass", "farm animal", 4),
    "pig": ("oinks", "piglet", "on a farm", "almost anything", "farm animal", 4),
    "horse": ("neighs", "foal", "on a farm", "grass and hay", "farm animal", 4),
    "duck": ("quacks", "duckling", "at the pond", "plants and insects", "bird", 2),
    "hen": ("clucks", "chick", "on a farm", "seeds", "bird", 2),
    "owl": ("hoots", "owlet", "in the forest", "mice", "bird", 2),
    "lion": ("roars", "cub", "in the grassland", "meat", "wild animal", 4),
    "wolf": ("howls", "cub", "in the forest", "meat", "wild animal", 4),
    "bear": ("growls", "cub", "in the forest", "berries and fish", "wild animal", 4),
    "frog": ("croaks", "tadpole", "at the pond", "insects", "wild animal", 4),
    "goat": ("bleats", "kid", "in the mountains", "grass and leaves", "farm animal", 4),
    "elephant": ("trumpets", "calf", "in the grassland", "leaves and grass", "wild animal", 4),
    "mouse": ("squeaks", "pup", "in a small hole", "seeds", "wild animal", 4),
}  # fmt: skip

COLOURS = {
    "banana": "yellow", "tomato": "red", "strawberry": "red", "carrot": "orange", "lemon": "yellow",
    "leaf": "green", "frog": "green", "cloud": "white", "cucumber": "green", "pumpkin": "orange",
    "cherry": "red", "piece of coal": "black", "flamingo": "pink", "polar bear": "white",
    "crow": "black", "chocolate bar": "brown", "sunflower": "yellow", "fire engine": "red",
    "blueberry": "blue", "plum": "purple", "swan": "white", "lime": "green",
}  # fmt: skip
COLOURS_OF_ALL = {
    "the sky": "blue", "the sea": "blue", "grass": "green", "snow": "white", "milk": "white",
    "the sun": "yellow", "blood": "red", "chocolate": "brown", "the night sky": "black",
    "gold": "yellow",
}  # fmt: skip
MIXED = {
    ("red", "yellow"): "orange", ("blue", "yellow"): "green", ("red", "blue"): "purple",
    ("red", "white"): "pink", ("black", "white"): "grey",
}  # fmt: skip

OPPOSITES = (
    ("hot", "cold"), ("big", "small"), ("fast", "slow"), ("happy", "sad"), ("day", "night"),
    ("up", "down"), ("left", "right"), ("old", "new"), ("open", "closed"), ("high", "low"),
    ("light", "dark"), ("hard", "soft"), ("wet", "dry"), ("full", "empty"), ("loud", "quiet"),
    ("early", "late"), ("long", "short"), ("strong", "weak"), ("thick", "thin"), ("near", "far"),
    ("rich", "poor"), ("clean", "dirty"), ("true", "false"), ("yes", "no"), ("in", "out"),
    ("black", "white"), ("first", "last"), ("start", "end"), ("good", "bad"), ("easy", "difficult"),
    ("always", "never"), ("push", "pull"), ("win", "lose"), ("awake", "asleep"),
)  # fmt: skip

# What a thing is for: read after "is for" or "you use it to".
USES = {
    "spoon": "eat soup", "knife": "cut things", "umbrella": "stay dry in the rain",
    "clock": "tell the time", "pencil": "write and draw", "broom": "sweep the floor",
    "key": "open a lock", "lamp": "make light", "bed": "sleep", "chair": "sit down",
    "bucket": "carry water", "hammer": "drive in nails", "needle": "sew clothes",
    "towel": "dry your hands", "kettle": "boil water", "ladder": "climb up high",
    "map": "find the way", "bridge": "cross a river", "oven": "bake bread",
    "boat": "travel on water",
    "ruler": "measure how long things are", "toothbrush": "clean your teeth",
    "telescope": "look at the stars", "mirror": "see yourself", "bicycle": "ride along the road",
    "book": "read stories", "cup": "drink tea", "phone": "talk to people far away",
    "shovel": "dig a hole", "basket": "carry things", "camera": "take pictures",
    "thermometer": "measure how warm it is",
}  # fmt: skip

GROUPS = {
    "fruit": ("apple", "pear", "banana", "plum", "orange", "cherry", "peach"),
    "vegetable": ("carrot", "potato", "onion", "cabbage", "pea", "bean", "cucumber"),
    "bird": ("owl", "duck", "robin", "eagle", "swan", "sparrow", "crow"),
    "colour": ("red", "blue", "green", "yellow", "purple", "orange", "white"),
    "tool": ("hammer", "saw", "shovel", "ladder", "drill", "brush", "knife"),
    "musical instrument": ("drum", "flute", "piano", "violin", "guitar", "trumpet", "harp"),
    "piece of clothing": ("hat", "coat", "scarf", "shirt", "sock", "shoe", "glove"),
    "farm animal": ("cow", "pig", "sheep", "goat", "horse", "hen", "donkey"),
    "wild animal": ("lion", "wolf", "bear", "tiger", "elephant", "zebra", "monkey"),
}  # fmt: skip

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September",
    "October", "November", "December",
)  # fmt: skip
SEASONS = ("spring", "summer", "autumn", "winter")
NUMBERS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
    "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
    "twenty",
)  # fmt: skip
HOW_MANY = {
    "days are in a week": 7, "months are in a year": 12, "hours are in a day": 24,
    "minutes are in an hour": 60, "seconds are in a minute": 60, "seasons are in a year": 4,
    "fingers are on one hand": 5, "legs does a spider have": 8, "legs does an insect have": 6,
    "wheels does a bicycle have": 2, "wheels does a car have": 4, "sides does a triangle have": 3,
    "sides does a square have": 4, "days are in a year": 365, "eggs are in a dozen": 12,
    "letters are in the alphabet": 26,
}  # fmt: skip
