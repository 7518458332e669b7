"""The words of the stories: who is in them, where they happen, what is in them."""

GIRLS = (
    "Mia", "Lily", "Anna", "Ella", "Zoe", "Ruby", "Nora", "Clara", "Maya", "Rosa",
    "Ivy", "Grace", "Lucy", "Hanna", "Amina", "Mei",
)  # fmt: skip
BOYS = (
    "Tom", "Ben", "Max", "Leo", "Sam", "Finn", "Oscar", "Jack", "Noah", "Omar",
    "Theo", "Hugo", "Paul", "Kofi", "Ravi", "Adam",
)  # fmt: skip

# Who else can be the hero of a story, and what they may be called.
CREATURES = (
    "fox", "rabbit", "bear", "owl", "mouse", "duck", "hedgehog", "squirrel", "kitten",
    "puppy", "frog", "elephant", "turtle", "penguin", "lamb", "otter", "dragon", "robot", "pirate",
    "wizard", "knight", "giant", "lion", "wolf", "cat", "dog", "horse", "monkey", "tiger", "seal",
    "deer", "goat", "ghost", "astronaut", "cow", "pig", "donkey", "badger",
)  # fmt: skip
CREATURE_NAMES = (
    "Pip", "Dot", "Nutmeg", "Pepper", "Biscuit", "Willow", "Button", "Hazel", "Sunny", "Coco",
    "Rusty", "Pebble", "Clover", "Bramble", "Ziggy", "Olive",
)  # fmt: skip

TRAITS = (
    "kind", "curious", "brave", "shy", "cheerful", "clever", "gentle", "patient", "playful",
    "quiet", "friendly", "careful", "honest", "lively",
)  # fmt: skip
SIZES = ("little", "small", "young", "tiny")

RELATIVES = (
    "mother", "father", "grandmother", "grandfather", "aunt", "uncle", "older sister",
    "older brother",
)  # fmt: skip
WORKERS = (
    ("baker", "he"), ("farmer", "she"), ("teacher", "she"), ("gardener", "he"), ("sailor", "he"),
    ("painter", "she"), ("miller", "he"), ("doctor", "she"), ("shopkeeper", "he"),
    ("librarian", "she"),
)  # fmt: skip

# Where a hero lives: read after "lived".
HOMES = (
    "in a small house near the forest", "in a village by the sea", "in a cottage on a green hill",
    "beside a quiet river", "on a farm at the edge of town", "in a tall house with a red door",
    "near an old mill", "in a valley full of flowers", "at the end of a long road",
    "in a busy town", "next to a wide meadow", "under a big oak tree", "close to the mountains",
)  # fmt: skip
# Where a story goes: read after "the".
PLACES = (
    "park", "forest", "garden", "river", "meadow", "beach", "market", "lake", "hill", "field",
    "orchard", "pond",
)  # fmt: skip
INDOORS = ("bed", "table", "chair", "sofa", "stairs", "blanket", "cupboard", "rug")
OUTDOORS = ("bench", "bridge", "oak tree", "bush", "fence", "wall", "cart", "old log")

COLOURS = ("red", "blue", "green", "yellow", "orange", "purple", "white", "brown", "pink", "golden")
TOYS = (
    "ball", "kite", "hat", "scarf", "book", "umbrella", "drum", "boat", "bell", "basket", "ribbon",
    "lantern", "cup", "button", "whistle", "backpack", "toy train", "paintbrush",
)  # fmt: skip
TREASURES = (
    "silver ring", "golden key", "little box", "old map", "shiny coin", "small purse",
    "wooden flute", "pocket watch", "letter", "glass bead", "music box", "tiny bell",
)  # fmt: skip
FOODS = (
    "apple", "pear", "sandwich", "cake", "loaf of bread", "pie", "orange", "bowl of soup",
    "bag of nuts", "biscuit", "plum", "pancake",
)  # fmt: skip
SEEDS = (
    ("sunflower", "tall"), ("rose", "sweet"), ("pumpkin", "round"), ("apple tree", "strong"),
    ("tulip", "bright"), ("bean plant", "green"), ("tomato plant", "leafy"), ("daisy", "pretty"),
)  # fmt: skip
STRAYS = ("kitten", "puppy", "duckling", "lamb", "baby bird", "rabbit", "hedgehog", "foal")
# A skill as "learn to ..." and its practice as "went on ...".
SKILLS = (
    ("swim", "swimming"), ("ride a bicycle", "riding"), ("whistle", "whistling"),
    ("play the flute", "playing"), ("bake bread", "baking"), ("skate", "skating"),
    ("climb trees", "climbing"), ("paint", "painting"), ("sing", "singing"), ("dance", "dancing"),
    ("read", "reading"), ("juggle", "juggling"),
)  # fmt: skip
GIFTS = (
    "warm scarf", "big cake", "wooden boat", "picture", "song", "basket of flowers", "paper star",
    "little lamp", "pot of honey", "bird house", "knitted hat", "necklace of shells",
)  # fmt: skip
NIGHT_LIGHTS = ("star", "lantern", "firefly", "lamp", "candle", "lighthouse")
MACHINES = ("clock", "lamp", "radio", "wagon", "music box", "water pump", "little train", "bicycle")

WEATHER = (
    "The sun was shining, and the sky was blue.", "It was cool, and a little windy.",
    "A soft rain had just stopped.", "The air smelled of fresh grass.",
    "The flowers were still wet from the rain.", "White clouds moved slowly over the hills.",
    "The air was bright and warm.", "The leaves moved softly in the wind.",
    "The birds were singing in the trees.", "A light fog lay over the fields.",
)  # fmt: skip
DAYS = (
    "One morning", "One day", "One afternoon", "Early one day", "One Saturday", "One Sunday",
    "Last week", "One fine day", "One Monday", "On the first day of the holidays", "Some time ago",
    "One Friday",
)  # fmt: skip
LATER = (
    "A week later", "Some days later", "The next month", "Not long after that", "Two weeks later",
    "On another day",
)  # fmt: skip
GLAD = ("happy", "glad", "proud", "cheerful", "delighted", "full of joy")
SAD = ("sad", "worried", "upset", "unhappy", "a little afraid")
